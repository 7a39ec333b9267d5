{#-
    Which batches of staging a model has to apply.

    A run freezes the newest batch once, so that all its models see the same ones. Each
    incremental model records what it has applied in its own transaction, and starts from there
    the next time: whatever a crash left undone, the next run does, and a batch that is applied
    again changes nothing. A model above others has applied what all of them have.
-#}

{% macro freeze_batches() %}
    {%- if execute -%}
    {%- set committed = env_var('MLED_STAGING') ~ '/committed' -%}
    {%- do run_query("create schema if not exists bookkeeping") -%}
    {%- do run_query(
        "create table if not exists bookkeeping.frozen_batch (store_id varchar, batch_id bigint)"
    ) -%}
    {%- do run_query(
        "create table if not exists bookkeeping.applied_batch"
        ~ " (model varchar primary key, batch_id bigint not null)"
    ) -%}
    {%- do run_query(
        "create table if not exists bookkeeping.published_batch as select -1::bigint as batch_id"
    ) -%}
    {%- if flags.FULL_REFRESH -%}
        {%- do run_query("update bookkeeping.published_batch set batch_id = -1") -%}
    {%- endif -%}
    {%- set newest = run_query(
        "select max(regexp_extract(file, 'batch_id=([0-9]+)', 1)::bigint) from glob('"
        ~ committed ~ "/batch_id=*/manifest.json')"
    ).columns[0].values()[0] -%}
    {%- if newest is none -%}
        {%- do exceptions.raise_compiler_error(
            "there is no batch in " ~ committed ~ ": extract one first, with `mled etl`"
        ) -%}
    {%- endif -%}
    {%- set manifest = run_query(
        "select store_id, batch_id from read_json('" ~ committed ~ "/batch_id=" ~ (newest | int)
        ~ "/manifest.json', columns = {store_id: 'varchar', batch_id: 'bigint'})"
    ) -%}
    {%- set store_id = manifest.columns['store_id'].values()[0] -%}
    {%- set others = run_query(
        "select store_id from bookkeeping.frozen_batch where store_id <> '" ~ store_id ~ "'"
        ~ " union all select model from bookkeeping.applied_batch where batch_id > " ~ newest
    ) -%}
    {%- if others.rows | length > 0 -%}
        {%- do exceptions.raise_compiler_error(
            target.path ~ " was built from batches that are not in " ~ committed
            ~ " (store " ~ store_id ~ ", batch " ~ newest ~ "): put them back, or remove the file"
            ~ " and run the ETL again to build the mart afresh"
        ) -%}
    {%- endif -%}
    {%- do run_query(
        "create or replace table bookkeeping.frozen_batch as select '" ~ store_id
        ~ "' as store_id, " ~ newest ~ "::bigint as batch_id"
    ) -%}
    {%- endif -%}
{% endmacro %}


{% macro frozen_batch() %}
    {#- The newest batch that this run reads. -#}
    {%- if not execute -%}{{ return(-1) }}{%- endif -%}
    {{ return(
        run_query("select max(batch_id) from bookkeeping.frozen_batch").columns[0].values()[0] | int
    ) }}
{% endmacro %}


{% macro applied_batch() %}
    {#- The newest batch that is wholly in the model's table; -1 when all have to be applied. -#}
    {%- if not (execute and is_incremental()) -%}{{ return(-1) }}{%- endif -%}
    {%- set found = run_query(
        "select batch_id from bookkeeping.applied_batch where model = '"
        ~ this.schema ~ "." ~ this.identifier ~ "'"
    ) -%}
    {{ return(found.columns[0].values()[0] | int if found.rows | length else -1) }}
{% endmacro %}


{% macro record_batch() %}
    {#- Run as a post-hook: it commits together with the rows. -#}
    {%- set parents = [] -%}
    {%- for parent in incremental_parents() -%}
        {%- do parents.append("'" ~ parent.schema ~ "." ~ parent.alias ~ "'") -%}
    {%- endfor -%}
    insert or replace into bookkeeping.applied_batch
    select '{{ this.schema }}.{{ this.identifier }}', min(batch_id)
    {% if parents %}
    from bookkeeping.applied_batch where model in ({{ parents | join(', ') }})
    {% else %}
    from bookkeeping.frozen_batch
    {% endif %}
{% endmacro %}


{% macro unpublished() %}
    {#- Condition for rows that changed since the mart was last published. -#}
    batch_id > (select batch_id from bookkeeping.published_batch)
{% endmacro %}
