{{ config(unique_key='trial_id') }}

{{ newest_per_key(ref('stg_trials')) }}
