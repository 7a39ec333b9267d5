{% macro generate_schema_name(custom_schema_name, node) %}
    {#- Layers keep their plain names, so that queries and dashboards read the same everywhere. -#}
    {{ return(custom_schema_name or target.schema) }}
{% endmacro %}
