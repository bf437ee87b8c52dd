"""Step by step decoding: policies, acceptance rules, step boundaries and the runner. Pure Python, no I/O."""
