{{ config(unique_key=['trial_id', 'metric', 'step']) }}

{{ newest_per_key(ref('stg_metrics')) }}
