"""What Airflow needs of the library beyond calling it: the only package that imports airflow."""
