"""The Airflow UI plugin of the bridge, for Airflow 3.1 and later. Other processes import only `plugin`."""
