{{ config(unique_key=['trial_id', 'name']) }}

with

    changed as ({{ changed_trials(['int_trial_attributes', 'int_tags']) }}),

    trials as (

        select *
        from {{ ref('int_trial_attributes') }}
        semi join changed using (trial_id)
        where not is_deleted

    ),

    tags as (select * from {{ ref('int_tags') }} where not is_deleted),

    final as (

        select
            trials.trial_id,
            tags.name,
            trials.experiment,
            trials.trial_label,
            tags.kind,
            tags.value,
            tags.number,
            tags.created_at,
            greatest(trials.batch_id, tags.batch_id) as batch_id
        from trials
        inner join tags using (trial_id)

    )

select *
from final
