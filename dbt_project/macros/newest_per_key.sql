{% macro newest_per_key(staged, key) %}
    {#-
        The newest version of each key among the batches that are not applied yet. A batch is one
        snapshot of the store: if it has a living row of a key, that is the key's state, whatever
        it says of deletions. A deleted key stays, marked is_deleted, so that the models above
        learn of the deletion; when they are all built anew, nobody has to.
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
            partition by {{ key | join(', ') }} order by batch_id desc, is_deleted
        ) = 1

)

select * from newest
{%- if not is_incremental() %}
where not is_deleted
{%- endif %}
order by {{ key | join(', ') }}
{% endmacro %}
