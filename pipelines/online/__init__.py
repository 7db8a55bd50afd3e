"""Online: the Redis layout, the TensorFlow Serving and PMML scorers, and the client."""
