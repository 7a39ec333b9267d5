{%- set key = ['environment_id'] -%}

{{ config(unique_key=key) }}

{{ newest_per_key(ref('stg_environments'), key) }}
