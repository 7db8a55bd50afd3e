"""Benchmarks: each starts services of its own, measures in one run, and writes its figures."""
