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

    metrics as (select * from {{ ref('int_trial_metrics') }} where not is_deleted),

    with_objective as (

        select
            trials.*,
            case
                trials.objective_direction
                when 'minimize'
                then metrics.min_value
                else metrics.max_value
            end as objective_value,
            case
                trials.objective_direction
                when 'minimize'
                then metrics.min_step
                else metrics.max_step
            end as objective_step,
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
            attempts.peak_memory_bytes,
            attempts.error_type,
            attempts.error_message,
            attempts.host,
            greatest(ranked.batch_id, ranked.metrics_batch_id, attempts.batch_id) as batch_id
        from ranked
        left join
            attempts on ranked.trial_id = attempts.trial_id and ranked.attempt = attempts.attempt

    )

select *
from final
