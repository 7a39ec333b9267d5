{{ config(unique_key=['trial_id', 'attempt']) }}

{{ newest_per_key(ref('stg_attempts')) }}
