with

    source as (select * from {{ source('store', 'hyperparameter') }}),

    renamed as (

        select
            name as hyperparameter,
            {{ number_or_nan("not is_deleted and kind = 'number'") }} as number,
            {{ value_as_text() }} as value,
            make_timestamp(created_at) as created_at,
            staged_in as batch_id,
            * exclude (name, number, "text", created_at, staged_in)
        from source

    )

select *
from renamed
