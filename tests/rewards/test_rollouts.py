"""Rollouts and their labels, with the engine's part played by hand."""

import numpy as np
import pytest

from rsd_cli.engine.jobs import Drawn, Observed, Read, Written, WrittenEnd
from rsd_cli.evaluation.grader import is_right
from rsd_cli.rewards.rollouts import Plan, Question, Rollout, complete, sample

QUESTION = Question("0", "What is 5 + 7?", "12", (1, 2))


def played(task, *written):
    """Drive a task to its end: these texts are written, with how each ended."""
    texts, job = iter(written), next(task)
    while True:
        came: Observed | Written = Observed(0, hidden=np.zeros(4, np.float32))
        if not isinstance(job, Read):
            text, ended = next(texts)
            came = Written(0, (5,) * 4, text, ended, 1.0, (Drawn(-0.5, 0.1),) * 4)
        try:
            job = task.send(came)
        except StopIteration:
            return


ENDS: list[tuple[str, WrittenEnd, bool]] = [
    ("5 + 7 = 12", "eog", True),
    ("5 + 7 = 12", "max_tokens", False),
    ("5 + 7 = 12", "context", False),
    ("5 + 7 = 12\n\n", "separator", False),
    (r"It is \boxed{12}, since", "max_tokens", True),
]


@pytest.mark.parametrize(("text", "ended", "right"), ENDS)
@pytest.mark.parametrize("plan", [Plan(max_tokens=8), Plan(max_steps=2)])
def test_the_last_number_of_a_rollout_that_was_cut_short_is_no_answer(plan, text, ended, right):
    made: list[Rollout] = []
    played(sample(QUESTION, [0], plan, is_right, made.append), ("We add.\n\n", "separator"), (text, ended))
    assert [(rollout.right, len(rollout.steps)) for rollout in made] == [(right, 2)]


@pytest.mark.parametrize(("text", "ended", "right"), ENDS)
def test_the_last_number_of_a_completion_that_was_cut_short_is_no_answer(text, ended, right):
    made: list[Rollout] = []
    plan = Plan(completions=2, labelled=1.0)
    steps = [("We add.\n\n", "separator"), ("Who knows?", "eog")]
    played(sample(QUESTION, [0], plan, is_right, made.append), *steps)
    played(complete(QUESTION, made[0], plan, is_right, made.append), (text, ended))
    assert [step.reaches for step in made[1].steps] == [right, False]
