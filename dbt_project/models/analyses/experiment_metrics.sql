with

    results as ({{ comparable_results('trial_metrics') }}),

    final as (

        select
            experiment,
            metric,
            any_value(is_objective) as is_objective,
            count(*) as trials,
            avg(result) as mean_result,
            case when isfinite(mean_result) then stddev_samp(result) end as stddev_result,
            min(result) as min_result,
            median(result) as median_result,
            max(result) as max_result
        from results
        group by experiment, metric

    )

select *
from final
