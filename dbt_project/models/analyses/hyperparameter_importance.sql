with

    results as ({{ comparable_results() }}),

    by_value as (

        select
            experiment,
            hyperparameter,
            metric,
            is_objective,
            hyperparameter_kind = 'text' as is_text,
            hyperparameter_value,
            count(*) as trials,
            avg(result) as mean_result,
            var_pop(result) * count(*) as squares
        from results
        where is_varied
        group by all

    ),

    with_overall_mean as (

        select
            *,
            sum(mean_result * trials) over same_question
            / sum(trials) over same_question as overall_mean
        from by_value
        window same_question as (partition by experiment, hyperparameter, metric)

    ),

    analysed as (

        select
            experiment,
            hyperparameter,
            metric,
            is_objective,
            sum(trials)::bigint as trials,
            count(*) as distinct_values,
            sum(trials * power(mean_result - overall_mean, 2)) as squares_between,
            sum(squares) as squares_within
        from with_overall_mean
        group by all

    ),

    final as (

        select
            experiment,
            hyperparameter,
            metric,
            is_objective,
            trials,
            distinct_values,
            squares_between / nullif(squares_between + squares_within, 0) as explained,
            -- Chance alone explains more, the more values there are.
            case
                when trials > distinct_values
                then
                    greatest(
                        0,
                        (
                            squares_between
                            - (distinct_values - 1) * squares_within / (trials - distinct_values)
                        )
                        / nullif(squares_between + squares_within, 0)
                    )
            end as importance,
            case
                when importance is not null
                then
                    rank() over (
                        partition by experiment, metric order by importance desc nulls last
                    )
            end as importance_rank
        from analysed

    )

select *
from final
