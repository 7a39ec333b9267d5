{{ config(unique_key=['trial_id', 'metric']) }}

with

    changed as ({{ changed_trials(['int_trial_attributes', 'int_trial_metrics']) }}),

    trials as (

        select *
        from {{ ref('int_trial_attributes') }}
        semi join changed using (trial_id)
        where not is_deleted

    ),

    metrics as (select * from {{ ref('int_trial_metrics') }} where not is_deleted),

    final as (

        select
            trials.trial_id,
            metrics.metric,
            trials.experiment,
            trials.author,
            trials.dataset,
            trials.model,
            trials.state,
            trials.seed,
            trials.trial_label,
            coalesce(metrics.metric = trials.objective_metric, false) as is_objective,
            trials.objective_direction,
            metrics.first_value,
            metrics.last_value,
            metrics.min_value,
            metrics.min_step,
            metrics.max_value,
            metrics.max_step,
            metrics.mean_value,
            case when is_objective then {{ best('value') }} end as best_value,
            case when is_objective then {{ best('step') }} end as best_step,
            metrics.steps,
            greatest(trials.batch_id, metrics.batch_id) as batch_id
        from trials
        inner join metrics using (trial_id)

    )

select *
from final
