{% test primary_key(model, columns) %}
    {#-
        No two rows share the key, and no part of it is missing. Looks at the keys that changed
        since the last publication: to look at all would cost more than the run.
    -#}
    {%- set key = columns | join(', ') %}

    with

        changed as (select distinct {{ key }} from {{ model }} where {{ unpublished() }}),

        doubled as (

            select {{ key }}
            from {{ model }}
            semi join changed using ({{ key }})
            group by {{ key }}
            having count(*) > 1

        ),

        incomplete as (

            select {{ key }} from changed where {{ columns | join(' is null or ') }} is null

        )

    select *
    from doubled
    union all
    select *
    from incomplete
{% endtest %}
