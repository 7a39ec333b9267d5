with

    source as (select * from {{ source('store', 'maintenance_run') }}),

    renamed as (

        select
            id as maintenance_run_id,
            make_timestamp(started_at) as started_at,
            make_timestamp(ended_at) as ended_at,
            make_timestamp(created_at) as created_at,
            staged_in as batch_id,
            * exclude (id, started_at, ended_at, created_at, staged_in)
        from source

    )

select *
from renamed
