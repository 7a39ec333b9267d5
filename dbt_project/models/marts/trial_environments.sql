{{ config(unique_key='trial_id') }}

with

    trials as (select * from {{ ref('int_trial_attributes') }} where not is_deleted),

    attempts as (select * from {{ ref('int_attempts') }} where not is_deleted),

    environments as (select * from {{ ref('int_environments') }}),

    code_versions as (select * from {{ ref('int_code_versions') }}),

    joined as (

        select
            trials.trial_id,
            trials.experiment,
            trials.trial_label,
            trials.attempt::integer as attempt,
            attempts.host,
            environments.environment_id,
            environments.python,
            environments.platform,
            environments.hardware ->> 'cpu' as cpu,
            (environments.hardware ->> 'cores')::integer as cores,
            (environments.hardware ->> 'memory_bytes')::bigint as memory_bytes,
            (environments.hardware ->> '$.gpus[*]')::varchar[] as gpus,
            len(json_keys(environments.packages))::integer as packages,
            code_versions.git_commit,
            code_versions.dirty as is_dirty,
            nullif(code_versions.diff_sha256, '') as diff_sha256,
            greatest(
                trials.batch_id, attempts.batch_id, environments.batch_id, code_versions.batch_id
            ) as batch_id
        from trials
        inner join
            attempts on trials.trial_id = attempts.trial_id and trials.attempt = attempts.attempt
        left join environments using (environment_id)
        left join code_versions using (code_version_id)

    ),

    final as (select * from joined where batch_id > {{ applied_batch() }})

select *
from final
