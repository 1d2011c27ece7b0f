"""The bridge's page in Airflow's UI, from Airflow 3.1 on; `plugin` is all of it that other processes import."""
