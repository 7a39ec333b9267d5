{%- set key = ['code_version_id'] -%}

{{ config(unique_key=key) }}

{{ newest_per_key(ref('stg_code_versions'), key) }}
