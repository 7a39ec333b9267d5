with

source as (

    select * from {{ source('store', 'code_version') }}

),

renamed as (

    select
        id as code_version_id,
        make_timestamp(created_at) as created_at,
        * exclude (id, created_at)
    from source

)

select * from renamed
