{% macro number_or_nan(kind_is_number) %}
    {#- The store keeps NaN as a number that is missing. -#}
    case when {{ kind_is_number }} and number is null then 'nan'::double else number end
{% endmacro %}


{% macro value_as_text() %}
    {#- A typed value of the store as text: 10 and 10.0 alike are `10`, as people write them. -#}
    case kind
        when 'number' then regexp_replace(coalesce(number, 'nan')::varchar, '\.0$', '')
        when 'integer' then coalesce("text", number::bigint::varchar)
        when 'boolean' then (number = 1)::varchar
        when 'null' then 'null'
        else "text"
    end
{% endmacro %}
