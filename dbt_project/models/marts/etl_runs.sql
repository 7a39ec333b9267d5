{{ config(unique_key='etl_run_id') }}

with

    -- A run that is under way says nothing yet; the next one brings its outcome.
    ended as (

        select *
        from {{ ref('int_etl_runs') }}
        where not is_deleted and state <> 'running' and batch_id > {{ applied_batch() }}

    ),

    final as (

        select
            etl_run_id,
            run_id,
            started_at,
            ended_at,
            state,
            make_timestamp(low) as read_from,
            make_timestamp(high) as read_until,
            rows_read,
            {%- for change in ['inserted', 'updated', 'deleted'] %}
                list_sum(json_extract(tables, '$.*.{{ change }}')::bigint[])::bigint
                as rows_{{ change }},
            {%- endfor %}
            bytes,
            epoch(ended_at - started_at) as duration_s,
            {%- for stage in ['extract', 'dbt', 'publish', 'compact'] %}
                (stage_seconds ->> '{{ stage }}')::double as {{ stage }}_s,
            {%- endfor %}
            lag_s,
            mart_version,
            error,
            batch_id
        from ended

    )

select *
from final
