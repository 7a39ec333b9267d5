with

    results as ({{ comparable_results('trial_metrics') }}),

    trials as (select trial_id, identity from {{ ref('int_trials') }} where not is_deleted),

    by_setting as (

        select
            results.experiment,
            trials.identity,
            results.metric,
            any_value(results.trial_label) as trial_label,
            count(*) as trials,
            avg(results.result) as mean_result
        from results
        inner join trials using (trial_id)
        group by results.experiment, trials.identity, results.metric

    ),

    final as (

        select
            one.experiment,
            other.experiment as other_experiment,
            one.identity,
            one.metric,
            one.trial_label,
            one.trials,
            other.trials as other_trials,
            one.mean_result,
            other.mean_result as other_mean_result,
            other.mean_result - one.mean_result as difference
        from by_setting as one
        inner join by_setting as other using (identity, metric)
        where one.experiment < other.experiment

    )

select *
from final
