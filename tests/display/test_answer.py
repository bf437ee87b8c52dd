from __future__ import annotations

import io

from rsd_cli.display.answer import print_answer
from tests.display.screens import console_on
from tests.display.scripted import STEPS, record


def _printed(**changes: object) -> str:
    file = io.StringIO()
    print_answer(console_on(file, 40, 24, color_system=None), record(**changes))
    return file.getvalue()


def test_the_answer_is_set_apart():
    assert "│  72 " in _printed()


def test_an_answer_in_latex_is_readable():
    assert "(x²+1)/2" in _printed(final_answer=r"\dfrac{x^2+1}{2}")


def test_money_and_names_stay():
    assert "│  $18 for my_var_1 " in _printed(final_answer="$18 for my_var_1")


def test_without_a_boxed_answer_the_last_step_is_shown():
    printed = _printed(final_answer=None, steps=STEPS[:1])
    assert "no boxed answer" in printed
    assert "we add the clips" in printed


def test_a_hostile_answer_is_shown_as_text():
    assert r"\x1b[2J [red]" in _printed(final_answer="\x1b[2J [red]")
