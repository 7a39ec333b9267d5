{{ config(unique_key=['trial_id', 'hyperparameter', 'metric']) }}

with

    changed as ({{ changed_trials(['int_trial_attributes', 'int_trial_metrics']) }}),

    trials as (

        select *
        from {{ ref('int_trial_attributes') }}
        semi join changed using (trial_id)
        where not is_deleted

    ),

    hyperparameters as (select * from {{ ref('int_hyperparameters') }} where not is_deleted),

    varied as (

        select experiment_id, hyperparameter, is_varied
        from {{ ref('int_experiment_hyperparameters') }}

    ),

    metrics as (select * from {{ ref('int_trial_metrics') }} where not is_deleted),

    final as (

        select
            trials.trial_id,
            hyperparameters.hyperparameter,
            metrics.metric,
            trials.experiment,
            trials.author,
            trials.dataset,
            trials.model,
            trials.state,
            trials.seed,
            hyperparameters.kind as hyperparameter_kind,
            hyperparameters.value as hyperparameter_value,
            hyperparameters.number as hyperparameter_number,
            varied.is_varied,
            metrics.first_value,
            metrics.last_value,
            metrics.min_value,
            metrics.max_value,
            metrics.mean_value,
            coalesce(metrics.metric = trials.objective_metric, false) as is_objective,
            case when is_objective then {{ best('value') }} end as best_value,
            metrics.steps,
            greatest(trials.batch_id, metrics.batch_id) as batch_id
        from trials
        inner join hyperparameters using (trial_id)
        inner join varied using (experiment_id, hyperparameter)
        inner join metrics using (trial_id)

    )

select *
from final
