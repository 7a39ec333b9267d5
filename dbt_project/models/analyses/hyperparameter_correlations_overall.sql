{{ correlations([]) }}
