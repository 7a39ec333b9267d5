{{ config(unique_key='experiment_id') }}

{{ newest_per_key(ref('stg_experiments')) }}
