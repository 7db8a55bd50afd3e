"""The pages behind the Airflow plugin; only the API server imports this package."""
