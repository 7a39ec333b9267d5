{%- set key = ['trial_id', 'attempt'] -%}

{{ config(unique_key=key) }}

{{ newest_per_key(ref('stg_attempts'), key) }}
