{{ config(unique_key='author_id') }}

{{ newest_per_key(ref('stg_authors')) }}
