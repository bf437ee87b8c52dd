"""Process reward models: how each family looks at a step and turns what it sees into a reward in [0, 1]."""
