"""What examples compute beside the program's own figures."""

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_first_step_below_the_threshold_is_the_guess():
    example = runpy.run_path(str(EXAMPLES / "compare_rewards.py"))
    solutions = [([0.9, 0.2, 0.1], 1), ([0.9, 0.8], -1), ([0.4, 0.9], -1), ([0.9, 0.9], 0)]
    figures = example["first_errors"](solutions, 0.5)
    assert (figures.wrong, figures.correct, figures.f1) == (0.5, 0.5, 0.5)
    assert example["best_first_errors"](solutions).f1 >= 0.5
