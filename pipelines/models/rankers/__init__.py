"""Rankers in Keras: the probability that a user likes a candidate item.

``samples`` reads the point-in-time samples and learns vocabularies; ``encoded`` turns them into
numbers on disk, shuffled, to train from in constant memory; ``inputs`` and ``layers`` are what the
networks share; each network is a module of its own; ``training`` fits one and chooses when to
stop, with the graph of ``loop`` for all fits; ``export`` puts raw inputs in front of it; ``unit``
makes a version of it all.
"""

from __future__ import annotations

import os

# All before TensorFlow is imported. Its start-up lines:
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Sums whose order differs by CPU:
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# With several threads between operations, the order of a sum of gradients (AddN) depends on which
# of their buffers is free first. Inside an operation there are as many as there are cores.
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
