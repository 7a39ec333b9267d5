{{ config(unique_key=['trial_id', 'name']) }}

{{ newest_per_key(ref('stg_hyperparameters')) }}
