{% macro forget_deleted(current, key) %}
    {#- Run as a pre-hook: remove the rows whose key was deleted in what is not applied yet. -#}
    {%- if is_incremental() -%}
    delete from {{ this }}
    where ({{ key | join(', ') }}) in (
        select ({{ key | join(', ') }}) from {{ current }}
        where is_deleted and batch_id > {{ applied_batch() }}
    )
    {%- endif -%}
{% endmacro %}


{% macro forget_changed_trials(parents) %}
    {#- Run as a pre-hook of a model that writes whole trials: rows may go as well as come. -#}
    {%- if is_incremental() -%}
    delete from {{ this }} where trial_id in ({{ changed_trials(parents) }})
    {%- endif -%}
{% endmacro %}


{% macro changed_trials(parents) %}
    {#- Trials that changed in one of the models `parents` in what is not applied yet. -#}
    {%- for parent in parents %}
    select trial_id from {{ ref(parent) }} where batch_id > {{ applied_batch() }}
    {{- ' union' if not loop.last }}
    {%- endfor %}
{% endmacro %}
