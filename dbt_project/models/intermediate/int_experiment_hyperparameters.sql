{{ config(unique_key=['experiment_id', 'hyperparameter']) }}

with

    trials as (select trial_id, experiment_id from {{ ref('int_trials') }} where not is_deleted),

    hyperparameters as (select * from {{ ref('int_hyperparameters') }} where not is_deleted),

    trials_by_experiment as (

        select experiment_id, count(*) as trials from trials group by experiment_id

    ),

    compared as (

        select
            trials.experiment_id,
            hyperparameters.hyperparameter,
            -- The number 1 and the text 1 look alike, and yet are two values.
            count(distinct(kind in ('number', 'integer'), kind = 'text', value)) as distinct_values,
            count(*) as trials
        from hyperparameters
        inner join trials using (trial_id)
        group by trials.experiment_id, hyperparameters.hyperparameter

    ),

    current_state as (

        select
            compared.experiment_id,
            compared.hyperparameter,
            compared.distinct_values > 1 or compared.trials < by_experiment.trials as is_varied,
            false as is_deleted
        from compared
        inner join trials_by_experiment as by_experiment using (experiment_id)

    ),

    {% if is_incremental() -%}
        known as (select * from {{ this }}),

        -- Only what is no longer as it was: each row here renews all trials of its experiment.
        changed as (

            select
                experiment_id,
                hyperparameter,
                coalesce(current_state.is_varied, false) as is_varied,
                current_state.is_varied is null as is_deleted
            from current_state
            full join known using (experiment_id, hyperparameter)
            where
                current_state.is_varied
                is distinct from case when not known.is_deleted then known.is_varied end

        ),
    {%- else -%} changed as (select * from current_state),
    {%- endif %}

    final as (select *, {{ frozen_batch() }}::bigint as batch_id from changed)

select *
from final
