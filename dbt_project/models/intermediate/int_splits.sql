{%- set key = ['split_id'] -%}

{{ config(unique_key=key) }}

{{ newest_per_key(ref('stg_splits'), key) }}
