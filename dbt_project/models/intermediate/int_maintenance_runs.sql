{%- set key = ['maintenance_run_id'] -%}

{{ config(unique_key=key) }}

{{ newest_per_key(ref('stg_maintenance_runs'), key) }}
