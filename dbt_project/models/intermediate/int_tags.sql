{%- set key = ['trial_id', 'name'] -%}

{{ config(unique_key=key) }}

{{ newest_per_key(ref('stg_tags'), key) }}
