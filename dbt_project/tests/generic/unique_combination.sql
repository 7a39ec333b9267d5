{% test unique_combination(model, columns) %}
    {#-
        No two rows share the columns. Looks at the keys that the newest batch touched only: a
        test of the whole table would cost more than the run.
    -#}
    {%- set key = columns | join(', ') %}

with

touched as (

    select distinct {{ key }} from {{ model }}
    where batch_id = (select max(batch_id) from {{ model }})

)

select {{ key }}
from {{ model }}
semi join touched using ({{ key }})
group by {{ key }}
having count(*) > 1
{% endtest %}
