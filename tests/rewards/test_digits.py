"""A step's grade by a generator: what it reads, and what its ten logits mean."""

import math

import pytest

from rsd_cli.engine.jobs import Observed
from rsd_cli.errors import ModelError
from rsd_cli.rewards.digits import QUESTION, asked_behind, digit_tokens, grade, grading


def of(*logits):
    return grade(Observed(0, tuple(logits)))


def test_a_grade_is_the_mean_digit_over_nine():
    assert of(*[0.0] * 10) == pytest.approx(0.5)
    assert of(*[-100.0] * 9, 0.0) == pytest.approx(1.0)
    assert of(0.0, *[-100.0] * 9) == pytest.approx(0.0)
    assert of(*[-1000.0] * 7, 900.0, -1000.0, 900.0) == pytest.approx((7 + 9) / 2 / 9)


@pytest.mark.parametrize("none", [math.nan, math.inf, -math.inf])
def test_damaged_logits_are_no_grade(none):
    assert math.isnan(of(*[0.0] * 9, none))


def test_the_question_stands_behind_the_step_and_can_be_cut_off(tiny_model):
    model = tiny_model()
    asked = asked_behind([1, 2], [1, 2, 3, 4], model)
    assert asked == [3, 4]
    job = grading([5, 6, 7, 8], 2, asked, model)
    assert (job.context, job.boundaries) == ([5, 6, 7, 8, 3, 4], (2, 4))
    assert job.tokens == digit_tokens(model)
    assert [model.piece(token) for token in job.tokens] == [b"%d" % digit for digit in range(10)]


@pytest.mark.parametrize("conversation", [None, [1, 9, 3, 4], [1]])
def test_a_template_without_such_turns_gets_the_question_within_the_answer(conversation, tiny_model):
    model = tiny_model()
    text = b"".join(map(model.piece, asked_behind([1, 2], conversation, model))).decode()
    assert QUESTION in text


def test_a_vocabulary_without_digits_can_not_grade(tiny_model, monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(type(model), "tokenize", lambda *_args, **_more: [1, 2])
    with pytest.raises(ModelError, match="no token for each digit"):
        digit_tokens(model)
