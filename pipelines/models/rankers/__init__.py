"""Rankers in Keras: the probability that a user likes a candidate item.

``samples`` reads the point-in-time samples and learns vocabularies; ``encoded`` turns them into
numbers on disk, shuffled, to train from in constant memory; ``inputs`` and ``layers`` are what the
networks share; each network is a module of its own; ``training`` fits one and chooses when to
stop; ``export`` puts raw inputs in front of it; ``unit`` makes a version of it all.
"""
