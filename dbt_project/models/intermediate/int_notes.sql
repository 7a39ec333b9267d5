{%- set key = ['note_id'] -%}

{{ config(unique_key=key) }}

{{ newest_per_key(ref('stg_notes'), key) }}
