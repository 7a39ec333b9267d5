{%- set key = ['trial_id'] -%}

{{ config(unique_key=key) }}

{{ newest_per_key(ref('stg_trials'), key) }}
