{{ config(unique_key=['trial_id', 'metric']) }}

with

    -- To keep all points aside, as is done with what is read twice, would cost as much as all.
    points as not materialized(select * from {{ ref('int_metrics') }}),

    changed as (

        select distinct trial_id, metric from points where batch_id > {{ applied_batch() }}

    ),

    changed_points as (

        select
            points.*,
            -- NaN is neither the least nor the greatest of values, and no part of a mean.
            case when not is_deleted and not isnan(value) then value end as number,
            not is_deleted as is_alive
        from points
        {%- if is_incremental() %} semi join changed using (trial_id, metric) {%- endif %}

    ),

    -- A metric whose points are all gone stays as a deleted row, for the models above.
    summarised as (

        select
            trial_id,
            metric,
            count(*) filter (where is_alive) as steps,
            arg_min(value, step) filter (where is_alive) as first_value,
            arg_max(value, step) filter (where is_alive) as last_value,
            min(number) as min_value,
            max(number) as max_value,
            avg(number) as mean_value,
            max(batch_id) as batch_id
        from changed_points
        group by trial_id, metric

    ),

    extreme_steps as (

        select
            trial_id,
            metric,
            min(step) filter (where number = min_value) as min_step,
            min(step) filter (where number = max_value) as max_step
        from changed_points
        inner join summarised using (trial_id, metric)
        group by trial_id, metric

    ),

    final as (

        select
            summarised.*,
            extreme_steps.min_step,
            extreme_steps.max_step,
            summarised.steps = 0 as is_deleted
        from summarised
        inner join extreme_steps using (trial_id, metric)

    )

select *
from final
order by trial_id, metric
