{{ config(unique_key='dataset_id') }}

{{ newest_per_key(ref('stg_datasets')) }}
