-- Of each trial that changed since the last publication, the wide mart has all living points.
with

    changed as (

        select trial_id
        from {{ ref('int_trial_attributes') }}
        where {{ unpublished() }}
        union
        select trial_id
        from {{ ref('int_trial_metrics') }}
        where {{ unpublished() }}

    ),

    expected as (

        select points.trial_id, count(*) as points
        from {{ ref('int_metrics') }} as points
        inner join {{ ref('int_trials') }} as trials using (trial_id)
        semi join changed using (trial_id)
        where not points.is_deleted and not trials.is_deleted
        group by points.trial_id

    ),

    actual as (

        select trial_id, count(*) as points
        from {{ ref('metrics_wide') }}
        semi join changed using (trial_id)
        group by trial_id

    )

select trial_id, expected.points as expected_points, actual.points as actual_points
from expected
full join actual using (trial_id)
where expected_points is distinct from actual_points
