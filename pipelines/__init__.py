"""Ferry's library: from ratings to released recommendation models.

Nothing in it imports airflow but its package of that name.
"""
