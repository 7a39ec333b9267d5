{{ config(unique_key='trial_id') }}

with

    attributes as (select * from {{ ref('int_trial_attributes') }}),

    changed as (

        {{ changed_trials(['int_trial_attributes', 'int_trial_metrics', 'int_attempts']) }}

    ),

    -- A trial's rank depends on all trials of its experiment, and on those it was moved away from.
    affected_experiments as (

        select experiment_id
        from attributes
        semi join changed using (trial_id)
        {%- if is_incremental() %}
            union
            select experiment_id
            from {{ this }}
            semi join changed using (trial_id)
        {%- endif %}

    ),

    trials as (

        select *
        from attributes
        semi join affected_experiments using (experiment_id)
        where not is_deleted

    ),

    attempts as (select * from {{ ref('int_attempts') }} where not is_deleted),

    -- What a trial cost is what all its attempts took, those that failed included.
    costs as (

        select trial_id, sum(duration_s) as total_duration_s, sum(cpu_s) as total_cpu_s
        from attempts
        semi join trials using (trial_id)
        group by trial_id

    ),

    metrics as (

        select *
        from {{ ref('int_trial_metrics') }}
        semi join trials using (trial_id)
        where not is_deleted

    ),

    metrics_by_trial as (

        select
            trial_id,
            map_from_entries(
                list(
                    {
                        'k':metric,
                        'v': {
                            'first_value':first_value,
                            'last_value':last_value,
                            'min_value':min_value,
                            'min_step':min_step,
                            'max_value':max_value,
                            'max_step':max_step
                        }
                    }
                    order by metric
                )
            ) as metrics
        from metrics
        group by trial_id

    ),

    with_objective as (

        select
            trials.*,
            {{ best('value') }} as objective_value,
            {{ best('step') }} as objective_step,
            trials.state = 'finished' and objective_value is not null as is_ranked,
            case
                trials.objective_direction
                when 'minimize'
                then objective_value
                else - objective_value
            end as distance,
            metrics.batch_id as metrics_batch_id
        from trials
        left join
            metrics
            on trials.trial_id = metrics.trial_id
            and trials.objective_metric = metrics.metric

    ),

    ranked as (

        select
            *,
            case
                when is_ranked
                then rank() over (partition by experiment_id, is_ranked order by distance)
            end as experiment_rank
        from with_objective

    ),

    final as (

        select
            ranked.trial_id,
            ranked.experiment_id,
            ranked.experiment,
            ranked.author,
            ranked.dataset,
            ranked.dataset_version,
            ranked.model,
            ranked.state,
            ranked.seed,
            ranked.repeat::integer as repeat,
            ranked.attempt::integer as attempt,
            ranked.hyperparameters,
            ranked.trial_label,
            ranked.objective_metric,
            ranked.objective_direction,
            ranked.objective_value,
            ranked.objective_step,
            ranked.experiment_rank,
            ranked.started_at,
            ranked.ended_at,
            attempts.duration_s,
            attempts.cpu_s,
            costs.total_duration_s,
            costs.total_cpu_s,
            attempts.peak_memory_bytes,
            attempts.error_type,
            attempts.error_message,
            attempts.traceback,
            attempts.host,
            metrics_by_trial.metrics,
            greatest(ranked.batch_id, ranked.metrics_batch_id, attempts.batch_id) as batch_id
        from ranked
        left join
            attempts on ranked.trial_id = attempts.trial_id and ranked.attempt = attempts.attempt
        left join costs on ranked.trial_id = costs.trial_id
        left join metrics_by_trial on ranked.trial_id = metrics_by_trial.trial_id

    )

select *
from final
