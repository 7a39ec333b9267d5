{{ config(unique_key='note_id') }}

with

    changed as ({{ changed_trials(['int_trial_attributes', 'int_notes']) }}),

    trials as (

        select *
        from {{ ref('int_trial_attributes') }}
        semi join changed using (trial_id)
        where not is_deleted

    ),

    notes as (select * from {{ ref('int_notes') }} where not is_deleted),

    final as (

        select
            notes.note_id,
            trials.trial_id,
            trials.experiment,
            trials.trial_label,
            notes.text,
            notes.created_at,
            greatest(trials.batch_id, notes.batch_id) as batch_id
        from trials
        inner join notes using (trial_id)

    )

select *
from final
