{% macro newest_per_key(staged, key) %}
    {#-
        The newest version of each key among the batches that are not applied yet. A deleted key
        stays, marked is_deleted, so that the models above learn of the deletion. At equal stamps
        the living row wins: one snapshot cannot hold a row that was deleted after it.
    -#}
with

unapplied as (

    select * from {{ staged }}
    where batch_id > {{ applied_batch() }} and batch_id <= {{ frozen_batch() }}

),

newest as (

    select * from unapplied
    qualify
        row_number() over (
            partition by {{ key | join(', ') }} order by updated_at desc, is_deleted
        ) = 1

)

select * from newest
order by {{ key | join(', ') }}
{% endmacro %}
