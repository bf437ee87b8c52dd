"""Figures about runs: how fast, compared with what."""
