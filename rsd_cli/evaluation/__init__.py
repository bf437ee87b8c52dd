"""Tasks and their grading, and figures about runs: how right, how fast, at what cost. Knows no command."""
