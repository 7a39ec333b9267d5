{{ config(unique_key='dataset_id') }}

-- There are few datasets, and a change of one can concern all its versions: each run that brings
-- something of the tables below renews every row.
with

    datasets as (select * from {{ ref('int_datasets') }} where not is_deleted),

    splits as (

        select
            dataset_id,
            count(*) as splits,
            max(shared_rows) as most_shared_rows,
            max(shared_rows / nullif(evaluation_rows, 0)) as most_shared_share
        from {{ ref('int_splits') }}
        where not is_deleted
        group by dataset_id

    ),

    users as (

        select
            experiments.dataset_id,
            count(distinct experiments.experiment_id) as experiments,
            count(trials.trial_id) as trials,
            list(distinct authors.name order by authors.name) as authors,
            min(trials.started_at) as first_used_at,
            max(trials.started_at) as last_used_at
        from {{ ref('int_experiments') }} as experiments
        inner join {{ ref('int_authors') }} as authors using (author_id)
        left join
            {{ ref('int_trials') }} as trials
            on experiments.experiment_id = trials.experiment_id
            and not trials.is_deleted
        where not experiments.is_deleted and not authors.is_deleted
        group by experiments.dataset_id

    ),

    final as (

        select
            datasets.dataset_id,
            datasets.name as dataset,
            datasets.version as dataset_version,
            row_number() over (
                partition by datasets.name order by datasets.created_at, dataset_id
            ) as version_number,
            datasets.source,
            datasets.task,
            datasets.rows,
            datasets.features,
            datasets.classes,
            datasets.bytes,
            datasets.created_at as first_seen_at,
            coalesce(users.experiments, 0) as experiments,
            coalesce(users.trials, 0) as trials,
            coalesce(users.authors, []) as authors,
            users.first_used_at,
            users.last_used_at,
            coalesce(splits.splits, 0) as splits,
            splits.most_shared_rows,
            splits.most_shared_share,
            coalesce(splits.most_shared_rows > 0, false) as has_overlap,
            {{ frozen_batch() }}::bigint as batch_id
        from datasets
        left join users using (dataset_id)
        left join splits using (dataset_id)

    )

select *
from final
