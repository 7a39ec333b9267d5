with

    source as (select * from {{ source('store', 'experiment') }}),

    renamed as (

        select
            id as experiment_id,
            make_timestamp(created_at) as created_at,
            staged_in as batch_id,
            * exclude (id, created_at, staged_in)
        from source

    )

select *
from renamed
