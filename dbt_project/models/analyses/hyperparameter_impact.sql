with

    results as ({{ comparable_results() }}),

    by_value as (

        select
            experiment,
            hyperparameter,
            hyperparameter_kind = 'text' as is_text,
            hyperparameter_value,
            metric,
            is_varied,
            is_objective,
            count(*) as trials,
            avg(result) as mean_result,
            min(result) as min_result,
            max(result) as max_result,
            stddev_samp(result) as stddev_result
        from results
        group by all

    ),

    with_interval as (

        select
            *,
            {{ t_quantile('trials - 1') | indent(8) }} * stddev_result / sqrt(trials) as half_width,
            sum(mean_result * trials) over same_question
            / sum(trials) over same_question as overall_mean
        from by_value
        window same_question as (partition by experiment, hyperparameter, metric)

    ),

    final as (

        select
            experiment,
            hyperparameter,
            hyperparameter_value,
            is_text,
            metric,
            is_varied,
            is_objective,
            trials,
            mean_result,
            min_result,
            max_result,
            stddev_result,
            mean_result - half_width as mean_low,
            mean_result + half_width as mean_high,
            mean_result - overall_mean as difference
        from with_interval

    )

select *
from final
