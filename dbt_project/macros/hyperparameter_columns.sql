{% macro hyperparameter_columns() %}
    {#- The registered columns: a list of dictionaries with name, column_name and data_type. -#}
    {%- set registry = ref('int_hyperparameter_columns') -%}
    {%- if not execute -%}{{ return([]) }}{%- endif -%}
    {%- set found = run_query(
        "select name, column_name, data_type from " ~ registry
        ~ " where column_name is not null order by position"
    ) -%}
    {%- set columns = [] -%}
    {%- for row in found.rows -%}
        {%- do columns.append(
            {"name": row["name"], "column_name": row["column_name"], "data_type": row["data_type"]}
        ) -%}
    {%- endfor -%}
    {{ return(columns) }}
{% endmacro %}


{% macro hyperparameter_column(column) %}
    {#- The value of one registered hyperparameter, from the rows of one trial. -#}
    {%- set named = "hyperparameter = '" ~ dbt.escape_single_quotes(column.name) ~ "' and fits" -%}
    {%- if column.data_type == 'DOUBLE' -%}
    max(number) filter (where {{ named }})
    {%- elif column.data_type == 'BOOLEAN' -%}
    bool_or(number = 1) filter (where {{ named }})
    {%- else -%}
    max(value) filter (where {{ named }})
    {%- endif %} as {{ adapter.quote(column.column_name) }}
{% endmacro %}
