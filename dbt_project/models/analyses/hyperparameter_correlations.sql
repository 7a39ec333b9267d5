{{ correlations(['experiment']) }}
