"""Models: one module each, found by unit name in :mod:`pipelines.models.registry`."""
