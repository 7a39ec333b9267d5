{%- set key = ['trial_id', 'hyperparameter'] -%}

{{ config(unique_key=key) }}

{{ newest_per_key(ref('stg_hyperparameters'), key) }}
