"""What a trial is: datasets, models, grids, and running one trial. Imports no Airflow."""
