{{ config(unique_key='trial_id') }}

{%- set columns = hyperparameter_columns() %}

with

    trials as (select * from {{ ref('int_trials') }}),

    experiments as (select * from {{ ref('int_experiments') }}),

    authors as (select * from {{ ref('int_authors') }}),

    datasets as (select * from {{ ref('int_datasets') }}),

    models as (select * from {{ ref('int_models') }}),

    hyperparameters as (

        select
            hyperparameters.*,
            coalesce(
                registry.column_name is not null
                and case
                    registry.data_type
                    when 'DOUBLE'
                    then hyperparameters.kind in ('number', 'integer')
                    when 'BOOLEAN'
                    then hyperparameters.kind = 'boolean'
                    else true
                end,
                false
            )
            or hyperparameters.kind = 'null' as fits
        from {{ ref('int_hyperparameters') }} as hyperparameters
        left join
            {{ ref('int_hyperparameter_columns') }} as registry
            on hyperparameters.hyperparameter = registry.name

    ),

    hyperparameter_changes as (

        select trial_id, max(batch_id) as batch_id from hyperparameters group by trial_id

    ),

    -- What tells the trials of an experiment apart; all there is, where nothing does.
    varied as (

        select *, is_varied or not bool_or(is_varied) over (partition by experiment_id) as is_shown
        from {{ ref('int_experiment_hyperparameters') }}

    ),

    varied_changes as (

        select experiment_id, max(batch_id) as batch_id from varied group by experiment_id

    ),

    -- A change of anything that a trial refers to is a change of the trial.
    attributes as (

        select
            trials.trial_id,
            trials.experiment_id,
            experiments.name as experiment,
            authors.name as author,
            datasets.name as dataset,
            datasets.version as dataset_version,
            models.name as model,
            trials.state,
            trials.seed,
            trials.repeat,
            trials.attempt,
            experiments.objective as objective_metric,
            experiments.direction as objective_direction,
            trials.started_at,
            trials.ended_at,
            trials.is_deleted,
            greatest(
                trials.batch_id,
                experiments.batch_id,
                authors.batch_id,
                datasets.batch_id,
                models.batch_id,
                hyperparameter_changes.batch_id,
                varied_changes.batch_id
            ) as batch_id
        from trials
        left join experiments using (experiment_id)
        left join authors using (author_id)
        left join datasets using (dataset_id)
        left join models using (model_id)
        left join hyperparameter_changes using (trial_id)
        left join varied_changes using (experiment_id)

    ),

    changed_trials as (select * from attributes where batch_id > {{ applied_batch() }}),

    shown as (

        select hyperparameters.*, varied.is_shown
        from hyperparameters
        inner join changed_trials using (trial_id)
        inner join varied using (experiment_id, hyperparameter)
        where not hyperparameters.is_deleted

    ),

    hyperparameters_by_trial as (

        select
            trial_id,
            string_agg(
                hyperparameter
                || '='
                || case when length(value) > 40 then left(value, 39) || '…' else value end,
                ', '
                order by hyperparameter
            ) filter (where is_shown) as hyperparameters,
            {% for column in columns -%} {{ hyperparameter_column(column) }}, {% endfor -%}
            map_from_entries(
                list({'k':hyperparameter, 'v':value} order by hyperparameter) filter (
                    where not fits
                )
            ) as hyperparameters_other
        from shown
        group by trial_id

    ),

    final as (

        select
            changed_trials.*,
            coalesce(by_trial.hyperparameters, '') as hyperparameters,
            concat_ws(' ', '#' || trial_id, by_trial.hyperparameters) as trial_label,
            by_trial.* exclude (trial_id, hyperparameters)
        from changed_trials
        left join hyperparameters_by_trial as by_trial using (trial_id)

    )

select *
from final
