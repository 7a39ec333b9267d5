{{ config(unique_key='maintenance_run_id') }}

with

    runs as (

        select *
        from {{ ref('int_maintenance_runs') }}
        where not is_deleted and batch_id > {{ applied_batch() }}

    ),

    final as (

        select
            maintenance_run_id,
            started_at,
            ended_at,
            state,
            epoch(ended_at - started_at) as duration_s,
            orphans,
            json_array_length(problems)::bigint as problems,
            problems ->> '$[0]' as first_problem,
            backup_path,
            backup_bytes,
            backups_deleted,
            error,
            batch_id
        from runs

    )

select *
from final
