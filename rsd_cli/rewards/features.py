"""What a head reads beside hidden states: facts of a step's text that cost no pass, such as false equations.

Pure functions of text. Which of them a head takes, and in which order, stands in the head.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rsd_cli.rewards.families import Solution

LONGEST = 4_000  # characters of a step that are looked at
NUMBER = r"\d+(?:\.\d+)?"
EQUATION = re.compile(rf"(?<![\w.)])(-?{NUMBER}(?:[-+*/]-?{NUMBER})+)=(-?{NUMBER})(?![\w.]*[-+*/(\d])")
NUMBERS = re.compile(NUMBER)
NEGATIVE = re.compile(rf"=-{NUMBER}")
PART = re.compile(rf"{NUMBER}|[-+*/]")
SAME = ((r"\times", "*"), (r"\cdot", "*"), (r"\div", "/"), ("×", "*"), ("÷", "/"), ("−", "-"))
FRACTION = re.compile(rf"\\[dt]?frac\{{({NUMBER})\}}\{{({NUMBER})\}}")
DRESSING = re.compile(r"\\text\{[^{}]*\}|\\?[$%]|(?<=\d),(?=\d{3})|[{}]|\s+(?=[-+*/=])|(?<=[-+*/=])\s+")


def false_equations(text: str) -> tuple[int, int]:
    """How many equations between numbers, such as 3 * 4 = 13, are false, and how many there are.

    A result that is rounded to two decimals or more counts as true.
    """
    verdicts = [_holds(left, right) for left, right in EQUATION.findall(_plain(text))]
    known = [verdict for verdict in verdicts if verdict is not None]
    return known.count(False), len(known)


def _plain(text: str) -> str:
    text = FRACTION.sub(r"\1/\2", text[:LONGEST])
    for written, sign in SAME:
        text = text.replace(written, sign)
    return DRESSING.sub("", text)


def _holds(left: str, right: str) -> bool | None:
    try:
        difference = abs(_value(left) - Fraction(right))
    except ZeroDivisionError:
        return None
    places = len(right.partition(".")[2])
    return difference <= Fraction(1, 10 ** max(places, 2)) if places else difference < Fraction(1, 100)


def _value(expression: str) -> Fraction:
    """Sums of products, left to right."""
    total, product, sign, operator = Fraction(0), Fraction(1), 1, "*"
    negative = False
    for part in PART.findall(expression):
        if part == "-" and operator:
            negative = True
        elif part in "+-":
            total, product, sign, operator = (
                total + sign * product,
                Fraction(1),
                1 if part == "+" else -1,
                "*",
            )
        elif part in "*/":
            operator = part
        else:
            number = -Fraction(part) if negative else Fraction(part)
            product = product * number if operator == "*" else product / number
            operator, negative = "", False
    return total + sign * product


def numbers(text: str) -> list[str]:
    """The numbers in a text, without thousands separators."""
    return NUMBERS.findall(_plain(text))


def _share_new(step: Solution) -> float:
    """Share of the step's numbers that neither the question nor an earlier step has."""
    known = {*numbers(step.question), *(number for text in step.steps[:-1] for number in numbers(text))}
    own = numbers(step.newest)
    return sum(number not in known for number in own) / max(1, len(own))


def _share_used(step: Solution) -> float:
    """Share of the question's numbers that the solution has used so far."""
    asked, used = set(numbers(step.question)), set(numbers(step.text))
    return len(asked & used) / max(1, len(asked))


FEATURES: dict[str, Callable[[Solution], float]] = {
    "position": lambda step: math.log(len(step.steps)),
    "first": lambda step: float(len(step.steps) == 1),
    "length": lambda step: math.log1p(len(step.newest)),
    "length_so_far": lambda step: math.log1p(len(step.text)),
    "question_length": lambda step: math.log1p(len(step.question)),
    "question_numbers": lambda step: math.log1p(len(numbers(step.question))),
    "question_fractions": lambda step: float(
        len(re.findall(r"%|\bhalf\b|\btwice\b|\d/\d|\d\.\d", step.question))
    ),
    "false_equations": lambda step: float(min(3, false_equations(step.newest)[0])),
    "false_so_far": lambda step: float(min(3, false_equations(step.text)[0])),
    "equations_so_far": lambda step: math.log1p(false_equations(step.text)[1]),
    "negative": lambda step: float(bool(NEGATIVE.search(_plain(step.newest)))),
    "decimals": lambda step: float(any("." in number for number in numbers(step.newest))),
    "new_numbers": _share_new,
    "used_numbers": _share_used,
    "boxed": lambda step: float("\\boxed" in step.newest),
    "boxed_decimal": lambda step: float(bool(re.search(r"boxed\{[^{}]*\d\.\d", step.newest))),
}
