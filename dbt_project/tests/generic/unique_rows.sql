{% test unique_rows(model, columns) %}
    {#- No two rows share the key. For small models: it looks at all rows. -#}
    {%- set key = columns | join(', ') %}
    select {{ key }}
    from {{ model }}
    group by {{ key }}
    having count(*) > 1
{% endtest %}
