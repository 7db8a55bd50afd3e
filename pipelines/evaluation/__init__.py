"""Evaluation: the temporal holdout, metrics and the baselines that stand beside them."""
