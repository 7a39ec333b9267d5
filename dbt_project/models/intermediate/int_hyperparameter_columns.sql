{{ config(unique_key='name', full_refresh=false) }}

with

    known as (

        {% if is_incremental() %}select name, slug, position from {{ this }}
        {% else %}select null::varchar as name, null::varchar as slug, 0 as position where false
        {% endif %}

    ),

    -- A null tells nothing of a type: the name waits for a value.
    unknown as (

        select hyperparameter as name, kind, batch_id
        from {{ ref('int_hyperparameters') }}
        where
            batch_id > {{ applied_batch() }}
            and not is_deleted
            and kind <> 'null'
            and hyperparameter not in (select name from known)

    ),

    first_seen as (select * from unknown qualify batch_id = min(batch_id) over (partition by name)),

    named as (

        select
            name,
            batch_id,
            coalesce(
                nullif(
                    trim(
                        left(
                            trim(regexp_replace(lower(name), '[^\p{L}\p{N}]+', '_', 'g'), '_'), 50
                        ),
                        '_'
                    ),
                    ''
                ),
                'unnamed'
            ) as slug,
            case
                when bool_and(kind in ('number', 'integer'))
                then 'DOUBLE'
                when bool_and(kind = 'boolean')
                then 'BOOLEAN'
                else 'VARCHAR'
            end as data_type
        from first_seen
        group by name, batch_id

    ),

    numbered as (

        select
            *,
            (select count(*) from known where known.slug = named.slug)
            + row_number() over (partition by slug order by batch_id, name) as namesake,
            (select coalesce(max(position), 0) from known)
            + row_number() over (order by batch_id, name) as position
        from named

    ),

    -- A slug never holds two underscores in a row, so a numbered column is nobody else's.
    final as (

        select
            name,
            slug,
            position,
            case
                when position <= {{ var('max_hyperparameter_columns') }}
                then 'hp_' || slug || case when namesake > 1 then '__' || namesake else '' end
            end as column_name,
            data_type,
            batch_id
        from numbered

    )

select *
from final
