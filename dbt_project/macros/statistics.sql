{% macro t_quantile(degrees) %}
    {#-
        The quantile of Student's distribution at 0.975, for confidence intervals of 95%: exact for
        few degrees of freedom, then by the expansion of Cornish and Fisher, which errs by less
        than one part in 100,000.
    -#}
    {%- set exact = [
        12.706204736, 4.302652730, 3.182446305, 2.776445105, 2.570581836, 2.446911849,
        2.364624252, 2.306004135, 2.262157163, 2.228138852
    ] -%}
    {%- set z = 1.959963984540054 -%}
    {%- set terms = [
        (z ** 3 + z) / 4,
        (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
        (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
        (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92160,
    ] -%}
    case {{ degrees }}
        {%- for quantile in exact %}
        when {{ loop.index }} then {{ quantile }}
        {%- endfor %}
        else {{ z }}
        {%- for term in terms %} + {{ term }} / ({{ degrees }}) ** {{ loop.index }}{% endfor %}
    end
{% endmacro %}


{% macro comparable_results(table='trial_hyperparameter_metrics') %}
    {#-
        What an analysis compares: one finite value for each finished trial, metric and, if the
        table has them, hyperparameter. That is the best value of the objective, and the last one
        of other metrics, of which nobody has said whether more is better.
    -#}
    select
        *,
        case when is_objective then best_value else last_value end as result
    from {{ ref(table) }}
    where state = 'finished' and isfinite(result)
{% endmacro %}


{% macro trials_where(criteria) %}
    {#-
        The trials (`trial_id`) whose hyperparameters meet all of `criteria`: a mapping from the
        name of a hyperparameter to a comparison, as in {'lr': '<= 0.01', 'kernel': "= 'rbf'"}.
        What follows a quote is compared as text, all else as a number; a trial without the
        hyperparameter does not meet it.
    -#}
    {%- for name, comparison in criteria.items() %}
    select trial_id
    from {{ ref('int_hyperparameters') }}
    where
        not is_deleted
        and hyperparameter = '{{ dbt.escape_single_quotes(name) }}'
        and {{ 'value' if "'" in comparison else 'number' }} {{ comparison }}
        {%- if not loop.last %}
    intersect
        {%- endif %}
    {%- endfor %}
{% endmacro %}


{% macro correlations(groups) %}
    {#-
        Pearson's and Spearman's correlation of each numeric hyperparameter with each metric, for
        each of `groups`. It is null where one of the two does not vary.
    -#}
    {%- set by = (groups + ['hyperparameter', 'metric']) | join(', ') %}
with

results as (

    {{ comparable_results() }}

),

numeric_results as (

    select * from results
    where hyperparameter_kind in ('number', 'integer') and isfinite(hyperparameter_number)

),

-- Equal values share the mean of their ranks.
ranked as (

    select
        *,
        rank() over (partition by {{ by }} order by hyperparameter_number)
        + (count(*) over (partition by {{ by }}, hyperparameter_number) - 1) / 2
            as hyperparameter_rank,
        rank() over (partition by {{ by }} order by result)
        + (count(*) over (partition by {{ by }}, result) - 1) / 2 as result_rank
    from numeric_results

),

correlated as (

    select
        {{ by }},
        count(*) as trials,
        count(distinct experiment) as experiments,
        corr(hyperparameter_number, result) as correlation,
        corr(hyperparameter_rank, result_rank) as rank_correlation
    from ranked
    group by {{ by }}

),

final as (

    select
        {{ by }},
        trials,
        experiments,
        case when isfinite(correlation) then correlation end as pearson,
        case when isfinite(rank_correlation) then rank_correlation end as spearman,
        -- Fisher's transformation; beyond 0 and 1 only by rounding.
        case
            when trials > 3
                then tanh(atanh(greatest(least(pearson, 1), -1)) - 1.959963984540054 / sqrt(trials - 3))
        end as pearson_low,
        case
            when trials > 3
                then tanh(atanh(greatest(least(pearson, 1), -1)) + 1.959963984540054 / sqrt(trials - 3))
        end as pearson_high
    from correlated

)

select * from final
{% endmacro %}
