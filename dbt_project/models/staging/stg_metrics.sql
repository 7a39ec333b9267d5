with

    source as (select * from {{ source('store', 'metric') }}),

    renamed as (

        select
            name as metric,
            "text" as value_text,
            {{ number_or_nan('not is_deleted and "text" is null') }} as value,
            make_timestamp(created_at) as logged_at,
            staged_in as batch_id,
            * exclude (name, "text", number, created_at, staged_in)
        from source

    )

select *
from renamed
