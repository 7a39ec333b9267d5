with

    runs as (select * from {{ ref('int_etl_runs') }} where not is_deleted and state <> 'running'),

    by_table as (

        select
            etl_run_id,
            run_id,
            unnest(map_keys(counts)) as table_name,
            unnest(map_values(counts)) as counted
        from
            (
                select
                    etl_run_id,
                    run_id,
                    from_json(tables, '"MAP(VARCHAR, MAP(VARCHAR, BIGINT))"') as counts
                from runs
            )

    ),

    final as (

        select
            etl_run_id,
            run_id,
            table_name,
            counted['inserted'] as rows_inserted,
            counted['updated'] as rows_updated,
            counted['deleted'] as rows_deleted
        from by_table

    )

select *
from final
