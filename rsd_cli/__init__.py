"""Reward-Guided Speculative Decoding on the user's own machine; the command line is `rsd`."""

__version__ = "0.1.0"
