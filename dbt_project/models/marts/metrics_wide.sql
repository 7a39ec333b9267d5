{{ config(unique_key=['trial_id', 'metric', 'step'], on_schema_change='append_new_columns') }}

with

    -- To keep all points aside, as is done with what is read twice, would cost as much as all.
    points as not materialized(select * from {{ ref('int_metrics') }} where not is_deleted),

    attributes as (select * from {{ ref('int_trial_attributes') }} where not is_deleted),

    -- New and changed points, and all points of trials with a changed attribute: two questions,
    -- of which each can leave out most of the table.
    changed_points as (

        select *
        from points
        where batch_id > {{ applied_batch() }}
        {%- if is_incremental() %}
            union all
            select *
            from points
            semi join
                (select trial_id from attributes where batch_id > {{ applied_batch() }}) using (
                    trial_id
                )
            where batch_id <= {{ applied_batch() }}
        {%- endif %}

    ),

    final as (

        select
            points.trial_id,
            points.metric,
            points.step,
            points.value,
            points.value_text,
            points.logged_at,
            attributes.experiment,
            attributes.author,
            attributes.dataset,
            attributes.dataset_version,
            attributes.model,
            attributes.state,
            attributes.seed,
            attributes.repeat,
            attributes.hyperparameters,
            attributes.trial_label,
            greatest(points.batch_id, attributes.batch_id) as batch_id,
            {%- for column in hyperparameter_columns() %}
                attributes.{{ adapter.quote(column.column_name) }},
            {%- endfor %}
            attributes.hyperparameters_other
        from changed_points as points
        inner join attributes using (trial_id)

    )

-- The points lie sorted by trial, and the join keeps them so.
select *
from final
