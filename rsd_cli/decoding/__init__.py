"""Step by step decoding: policies, acceptance rules and the runner. Pure Python, no I/O."""
