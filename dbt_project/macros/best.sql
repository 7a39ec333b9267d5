{% macro best(of) %}
    {#-
        The best value or step (`of`) of a trial's objective, from its summary in int_trial_metrics:
        the objective's direction says which end of it that is.
    -#}
    case objective_direction when 'minimize' then min_{{ of }} else max_{{ of }} end
{%- endmacro %}
