{{ config(unique_key='etl_run_id') }}

{{ newest_per_key(ref('stg_etl_runs')) }}
