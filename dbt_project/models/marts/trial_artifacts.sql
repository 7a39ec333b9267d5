{{ config(unique_key='artifact_id') }}

with

    changed as ({{ changed_trials(['int_trial_attributes', 'int_artifacts']) }}),

    trials as (

        select *
        from {{ ref('int_trial_attributes') }}
        semi join changed using (trial_id)
        where not is_deleted

    ),

    artifacts as (select * from {{ ref('int_artifacts') }} where not is_deleted),

    final as (

        select
            artifacts.artifact_id,
            trials.trial_id,
            artifacts.name,
            trials.experiment,
            trials.trial_label,
            artifacts.path,
            artifacts.size as bytes,
            artifacts.sha256,
            artifacts.created_at,
            greatest(trials.batch_id, artifacts.batch_id) as batch_id
        from trials
        inner join artifacts using (trial_id)

    )

select *
from final
