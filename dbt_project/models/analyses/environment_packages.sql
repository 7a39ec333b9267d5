with

    environments as (select * from {{ ref('int_environments') }} where not is_deleted),

    listed as (

        select
            environment_id,
            unnest(map_entries(from_json(packages, '"MAP(VARCHAR, VARCHAR)"'))) as entry
        from environments

    ),

    final as (select environment_id, entry.key as package, entry.value as version from listed)

select *
from final
