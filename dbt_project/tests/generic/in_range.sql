{% test in_range(model, column_name, low=none, high=none) %}
    {#- A value lies between two bounds, give or take what rounding does; null is in range. -#}
    {%- set rounding = 1e-9 %}
    select {{ column_name }}
    from {{ model }}
    where
        false
        {%- if low is not none %} or {{ column_name }} < {{ low }} - {{ rounding }}{% endif %}
        {%- if high is not none %} or {{ column_name }} > {{ high }} + {{ rounding }}{% endif %}
{% endtest %}
