{% test primary_key(model, columns) %}
    {#-
        No two rows share the key, and no part of it is missing. Looks at what changed since the
        last publication, and at all rows that share the first part of a changed key: to look at
        all would cost more than the run.
    -#}
    {%- set key = columns | join(', ') %}

    with

        changed as (select distinct {{ columns[0] }} from {{ model }} where {{ unpublished() }}),

        doubled as (

            select {{ key }}
            from {{ model }}
            semi join changed using ({{ columns[0] }})
            group by {{ key }}
            having count(*) > 1

        ),

        incomplete as (

            select {{ key }}
            from {{ model }}
            where {{ unpublished() }} and ({{ columns | join(' is null or ') }} is null)

        )

    select *
    from doubled
    union all
    select *
    from incomplete
{% endtest %}
