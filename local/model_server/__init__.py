"""A small model server, wire-compatible with TensorFlow Serving.

It stands in for ``tensorflow_model_server`` on machines that do not have it: the same flags, the
same gRPC services, the same REST paths, JSON and error codes, the same version life cycle. One
process serves any number of models; more replicas are more processes on other ports.

``python -m local.model_server --help`` lists the flags.
"""
