"""Ferry's library: from ratings to released recommendation models. It never imports airflow."""
