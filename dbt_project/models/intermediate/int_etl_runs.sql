{%- set key = ['etl_run_id'] -%}

{{ config(unique_key=key) }}

{{ newest_per_key(ref('stg_etl_runs'), key) }}
