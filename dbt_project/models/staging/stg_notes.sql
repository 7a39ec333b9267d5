with

source as (

    select * from {{ source('store', 'note') }}

),

renamed as (

    select
        id as note_id,
        make_timestamp(created_at) as created_at,
        * exclude (id, created_at)
    from source

)

select * from renamed
