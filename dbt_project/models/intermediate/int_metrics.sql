{%- set key = ['trial_id', 'metric', 'step'] -%}

{{ config(unique_key=key) }}

{{ newest_per_key(ref('stg_metrics'), key) }}
