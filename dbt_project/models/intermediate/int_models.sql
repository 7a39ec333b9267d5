{{ config(unique_key='model_id') }}

{{ newest_per_key(ref('stg_models')) }}
