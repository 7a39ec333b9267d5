with

    source as (select * from {{ source('store', 'attempt') }}),

    renamed as (

        select
            number as attempt,
            make_timestamp(started_at) as started_at,
            make_timestamp(heartbeat_at) as heartbeat_at,
            make_timestamp(ended_at) as ended_at,
            make_timestamp(created_at) as created_at,
            staged_in as batch_id,
            * exclude (number, started_at, heartbeat_at, ended_at, created_at, staged_in)
        from source

    )

select *
from renamed
