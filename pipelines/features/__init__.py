"""Features: point-in-time correct samples, and the same features as of now for serving."""
