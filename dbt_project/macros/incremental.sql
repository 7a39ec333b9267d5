{% materialization incremental, adapter='duckdb' %}
    {#- dbt-duckdb's own, but for a model with nothing to apply, whose table stays as it is. -#}
    {%- set existing = load_cached_relation(this) -%}
    {%- if existing and existing.is_table and recorded_batch() == frozen_batch() -%}
        {%- do store_raw_result('main', message='UNCHANGED', code='', rows_affected='0') -%}
        {{ return({'relations': [this]}) }}
    {%- endif -%}
    {{ return(dbt.materialization_incremental_duckdb()) }}
{% endmaterialization %}
