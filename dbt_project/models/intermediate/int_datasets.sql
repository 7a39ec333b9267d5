{%- set key = ['dataset_id'] -%}

{{ config(unique_key=key) }}

{{ newest_per_key(ref('stg_datasets'), key) }}
