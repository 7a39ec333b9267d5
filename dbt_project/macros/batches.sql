{#-
    Which batches of staging a model has to apply.

    A run freezes the newest batch once, so that all its models see the same ones. Each
    incremental model records what it has applied in its own transaction, and starts from there
    the next time: whatever a crash left undone, the next run does, and a batch that is applied
    again changes nothing. A model above others has applied what all of them have. A model has
    also applied a batch that has no rows of the tables it is made of, without being run.

    A model also records the code that it was built with. When that has changed, or that of a
    model below it, the model is built anew from all there is, as with --full-refresh.
-#}

{% macro freeze_batches() %}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    {%- do run_query("create schema if not exists bookkeeping") -%}
    {%- do run_query(
        "create table if not exists bookkeeping.frozen"
        ~ " (store_id varchar, series varchar, batch_id bigint)"
    ) -%}
    {%- do run_query(
        "create table if not exists bookkeeping.applied"
        ~ " (model varchar primary key, batch_id bigint not null, code varchar not null)"
    ) -%}
    {%- do run_query(
        "create table if not exists bookkeeping.published as select -1::bigint as batch_id"
    ) -%}
    {%- set staged = newest_batch() -%}
    {%- set built = run_query("select store_id, series from bookkeeping.frozen").rows | first -%}
    {%- if built and not flags.FULL_REFRESH and built['store_id'] != staged['store_id'] -%}
        {%- do exceptions.raise_compiler_error(
            target.path ~ " was built from the store " ~ built['store_id'] ~ ", and staging is of "
            ~ staged['store_id'] ~ ": put the batches in " ~ env_var('MLED_STAGING') ~ " back, or"
            ~ " build the mart afresh with `mled warehouse rebuild`"
        ) -%}
    {%- endif -%}
    {%- if not built or built['series'] != staged['series'] -%}
        {%- do run_query("delete from bookkeeping.applied") -%}
    {%- endif -%}
    {%- do run_query(
        "create or replace table bookkeeping.frozen as select '" ~ staged['store_id']
        ~ "' as store_id, '" ~ staged['series'] ~ "' as series, " ~ staged['batch_id']
        ~ "::bigint as batch_id"
    ) -%}
    {%- do record_code() -%}
    {%- do pass_over_unconcerned() -%}
{% endmacro %}


{% macro manifests() -%}
    {{ env_var('MLED_STAGING') }}/committed/*-*/manifest.json
{%- endmacro %}


{% macro newest_batch() %}
    {%- if run_query("select file from glob('" ~ manifests() ~ "')").rows | length == 0 -%}
        {%- do exceptions.raise_compiler_error(
            "there is no batch in " ~ env_var('MLED_STAGING') ~ "/committed: extract one first, "
            ~ "with `mled etl`"
        ) -%}
    {%- endif -%}
    {{ return(run_query(
        "select store_id, series, batch_id from read_json('" ~ manifests() ~ "', columns = "
        ~ "{store_id: 'varchar', series: 'varchar', batch_id: 'bigint'})"
        ~ " order by batch_id desc limit 1"
    ).rows[0]) }}
{% endmacro %}


{% macro record_code() %}
    {#- Note the code of each model, and forget what those have applied that are to be rebuilt. -#}
    {%- set codes = [] -%}
    {%- set rebuilt = [] -%}
    {%- for node in graph.nodes.values() if node.config.materialized == 'incremental' -%}
        {%- set name = node.schema ~ '.' ~ node.alias -%}
        {%- do codes.append("('" ~ name ~ "', '" ~ code_of(node) ~ "')") -%}
        {%- if flags.FULL_REFRESH and node.unique_id in selected_resources -%}
            {%- do rebuilt.append("'" ~ name ~ "'") -%}
        {%- endif -%}
    {%- endfor -%}
    {%- do run_query(
        "create or replace table bookkeeping.code as select * from (values "
        ~ codes | join(', ') ~ ") as code (model, code)"
    ) -%}
    {%- do run_query(
        "delete from bookkeeping.applied where (model, code) not in"
        ~ " (select (model, code) from bookkeeping.code)"
        ~ (" or model in (" ~ rebuilt | join(', ') ~ ")" if rebuilt else "")
    ) -%}
    {#- The tests of the data look at all of what was built anew. -#}
    {%- do run_query(
        "update bookkeeping.published set batch_id = -1 where exists (select * from"
        ~ " bookkeeping.code anti join bookkeeping.applied using (model))"
    ) -%}
{% endmacro %}


{% macro pass_over_unconcerned() %}
    {#- Note as applied, for each model, the batches without rows of the tables it is made of. -#}
    {%- set reads = [] -%}
    {%- for node in graph.nodes.values() if node.config.materialized == 'incremental' -%}
        {%- for table in tables_of(node) | unique -%}
            {%- do reads.append("('" ~ node.schema ~ "." ~ node.alias ~ "', '" ~ table ~ "')") -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- set sql -%}
        update bookkeeping.applied
        set batch_id = (select batch_id from bookkeeping.frozen)
        where model not in (
            select applied.model
            from bookkeeping.applied
            inner join (values {{ reads | join(', ') }}) as reads (model, table_name) using (model)
            inner join (
                select unnest(json_keys(tables)) as table_name, batch_id
                from read_json(
                    '{{ manifests() }}', columns = {tables: 'json', batch_id: 'bigint'}
                )
            ) as staged using (table_name)
            where staged.batch_id > applied.batch_id
        )
    {%- endset -%}
    {%- do run_query(sql) -%}
{% endmacro %}


{% macro tables_of(node) %}
    {#- The tables of the store that a model is made of; a table may stand there twice. -#}
    {%- set tables = [] -%}
    {%- for parent in node.depends_on.nodes -%}
        {%- if parent in graph.sources -%}
            {%- do tables.append(graph.sources[parent].name) -%}
        {%- elif parent in graph.nodes -%}
            {%- do tables.extend(tables_of(graph.nodes[parent])) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(tables) }}
{% endmacro %}


{% macro code_of(node) %}
    {#- A hash of what decides over a model's rows: its SQL, that of the models below, the macros. -#}
    {%- set parts = [env_var('MLED_MACROS', ''), node.raw_code, node.config.unique_key | string] -%}
    {%- for parent in node.depends_on.nodes if parent in graph.nodes -%}
        {%- do parts.append(code_of(graph.nodes[parent])) -%}
    {%- endfor -%}
    {{ return(local_md5(parts | join('\n'))) }}
{% endmacro %}


{% macro should_full_refresh() %}
    {#- dbt asks this of each incremental model that exists; here the bookkeeping answers. -#}
    {%- if config.get('full_refresh') is not none -%}
        {{ return(config.get('full_refresh')) }}
    {%- endif -%}
    {{ return(recorded_batch() is none) }}
{% endmacro %}


{% macro frozen_batch() %}
    {#- The newest batch that this run reads. -#}
    {%- if not execute -%}{{ return(-1) }}{%- endif -%}
    {{ return(run_query("select max(batch_id) from bookkeeping.frozen").columns[0].values()[0] | int) }}
{% endmacro %}


{% macro recorded_batch() %}
    {%- set found = run_query(
        "select batch_id from bookkeeping.applied where model = '"
        ~ this.schema ~ "." ~ this.identifier ~ "'"
    ) -%}
    {{ return(found.columns[0].values()[0] | int if found.rows | length else none) }}
{% endmacro %}


{% macro applied_batch() %}
    {#- The newest batch that is wholly in the model's table; -1 when all have to be applied. -#}
    {%- if not (execute and is_incremental()) -%}{{ return(-1) }}{%- endif -%}
    {%- set recorded = recorded_batch() -%}
    {{ return(-1 if recorded is none else recorded) }}
{% endmacro %}


{% macro record_batch() %}
    {#- Run as a post-hook: it commits together with the rows. -#}
    {%- set parents = [] -%}
    {%- for parent in incremental_parents() -%}
        {%- do parents.append("'" ~ parent.schema ~ "." ~ parent.alias ~ "'") -%}
    {%- endfor -%}
    insert or replace into bookkeeping.applied
    select
        '{{ this.schema }}.{{ this.identifier }}',
        (
            select min(batch_id)
            {% if parents %}
            from bookkeeping.applied where model in ({{ parents | join(', ') }})
            {% else %}
            from bookkeeping.frozen
            {% endif %}
        ),
        code
    from bookkeeping.code where model = '{{ this.schema }}.{{ this.identifier }}'
{% endmacro %}


{% macro unpublished() %}
    {#-
        Condition for rows that changed since the mart was last published, to which the tests of
        each run keep; true of all rows where MLED_TEST_ALL_ROWS says so.
    -#}
    {%- if env_var('MLED_TEST_ALL_ROWS', 'false') == 'true' -%} true
    {%- else -%} batch_id > (select batch_id from bookkeeping.published)
    {%- endif -%}
{% endmacro %}


{% macro get_where_subquery(relation) %}
    {#- dbt's own, with a name for the condition above: `where: unpublished`. -#}
    {%- if config.get('where') == 'unpublished' -%}
        {{ return("(select * from " ~ relation ~ " where " ~ unpublished() ~ ") as unpublished") }}
    {%- endif -%}
    {{ return(dbt.get_where_subquery(relation)) }}
{% endmacro %}
