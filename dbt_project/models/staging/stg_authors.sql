with

source as (

    select * from {{ source('store', 'author') }}

),

renamed as (

    select
        id as author_id,
        make_timestamp(created_at) as created_at,
        * exclude (id, created_at)
    from source

)

select * from renamed
