{% macro get_incremental_apply_changes_sql(arg_dict) %}
    {#-
        The strategy of all incremental models: delete+insert by the unique key, and before it
        remove the rows that are made of a row which is gone. That is, for each model above which
        this one stands and whose key is among its columns, the keys that were deleted there.

        It is a strategy rather than a hook, because DuckDB does not let a transaction add
        columns to a table after it has removed rows from it.
    -#}
    {%- set target = arg_dict.target_relation -%}
    {%- set columns = arg_dict.dest_columns | map(attribute='name') | list -%}
    {%- for parent in incremental_parents() -%}
        {%- if parent.schema != 'intermediate' -%}
            {%- do exceptions.raise_compiler_error(
                model.name ~ " is incremental and reads " ~ parent.name ~ ", which does not tell of"
                ~ " deleted rows: read intermediate models instead, or make it a view in analyses"
            ) -%}
        {%- endif -%}
        {%- set key = parent.config.unique_key -%}
        {%- set key = [key] if key is string else key -%}
        {%- if key | reject('in', columns) | list | length == 0 %}
    delete from {{ target }}
    where ({{ key | join(', ') }}) in (
        select ({{ key | join(', ') }}) from {{ parent.relation_name }}
        where is_deleted and batch_id > {{ applied_batch() }}
    );
        {%- endif -%}
    {%- endfor %}
    {{ get_incremental_delete_insert_sql(arg_dict) }}
{% endmacro %}


{% macro incremental_parents() %}
    {#- The nodes of the incremental models that this one reads directly. -#}
    {%- set parents = [] -%}
    {%- for node in model.depends_on.nodes if node in graph.nodes -%}
        {%- if graph.nodes[node].config.materialized == 'incremental' -%}
            {%- do parents.append(graph.nodes[node]) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(parents) }}
{% endmacro %}


{% macro changed_trials(parents) %}
    {#- Trials that changed in one of the models `parents` in what is not applied yet. -#}
    {%- for parent in parents -%}
    select trial_id from {{ ref(parent) }} where batch_id > {{ applied_batch() }}
    {{- "
    union
    " if not loop.last }}
    {%- endfor -%}
{% endmacro %}
