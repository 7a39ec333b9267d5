{{ config(unique_key=['trial_id', 'attempt']) }}

with

    changed as ({{ changed_trials(['int_trial_attributes', 'int_attempts']) }}),

    trials as (

        select *
        from {{ ref('int_trial_attributes') }}
        semi join changed using (trial_id)
        where not is_deleted

    ),

    attempts as (select * from {{ ref('int_attempts') }} where not is_deleted),

    final as (

        select
            trials.trial_id,
            attempts.attempt::integer as attempt,
            trials.experiment,
            trials.trial_label,
            attempts.attempt = trials.attempt as is_latest,
            attempts.state,
            attempts.started_at,
            attempts.heartbeat_at,
            attempts.ended_at,
            attempts.duration_s,
            attempts.cpu_s,
            attempts.peak_memory_bytes,
            attempts.host,
            attempts.pid,
            attempts.error_type,
            attempts.error_message,
            attempts.traceback,
            greatest(trials.batch_id, attempts.batch_id) as batch_id
        from trials
        inner join attempts on trials.trial_id = attempts.trial_id

    )

select *
from final
