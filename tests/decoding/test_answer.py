r"""The final answer: the last complete \boxed{...} of what is not thinking."""

import pytest

from rsd_cli.decoding.answer import final_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{72}.", "72"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\sqrt{\frac{a}{b_{1}}}} and more {braces}", r"\sqrt{\frac{a}{b_{1}}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{a\\}", r"a\\"),
        (r"\boxed {5}", "5"),
        (r"\fboxed{5}", "5"),
        (r"\boxed{ 5 }", "5"),
        (r"\boxed{}", ""),
        (r"\boxed{18} within \boxed{ }, as asked", "18"),
        (r"\boxed{3} but \boxed{4", "3"),
        (r"\boxed{4", None),
        (r"\boxed 4", None),
        (r"\boxed{\text{a}", None),
        (r"<think>\boxed{1}</think>\boxed{2}", "2"),
        (r"<think>\boxed{1}</think> no box", None),
        (r"<think>\boxed{1}", None),
        (r"\boxed{1} <think>\boxed{2}", "1"),
        (r"<think>a</think>\boxed{1}</think>\boxed{2}", "2"),
        ("\\boxed{line\nbreak}", "line\nbreak"),
        (r"unboxed{5}", None),
        ("no answer", None),
        ("", None),
        ("\\boxed{5}\\", "5"),
        ("\\boxed{5\\", None),
        (r"\boxed{72}." + " And so on." * 400, "72"),
        (r"\boxed{\boxed{1}}", "1"),
        (r"a} \boxed{1} {\boxed{2} \boxed{3", "2"),
        ("a line's end\\\\\\boxed{\\}}", "\\}"),
    ],
)
def test_the_last_complete_box_is_the_answer(text, answer):
    assert final_answer(text) == answer


def test_what_is_too_long_is_no_answer():
    assert final_answer(r"\boxed{" + "1" * 5_000 + "}") is None
    assert final_answer(r"\boxed{72} \boxed{" + "1" * 5_000 + "}") == "72"


@pytest.mark.parametrize("n", [700, 20_000])
def test_many_open_boxes_take_no_time(n):
    assert final_answer(r"\boxed{" * n) is None
