"""Names of the data that the pipelines hand to each other."""

EXPERIMENTS = "mled://experiments"
"""Updated when a grid has ended; the ETL waits for it."""
