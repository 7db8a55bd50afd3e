"""Releases: immutable versions in object storage, staged online, switched by one pointer."""
