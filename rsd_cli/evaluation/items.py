"""Rows of benchmark files as items: the question as the Qwen2.5-Math evaluation puts it, and the gold answer.

A reader takes a row with lower-case keys and gives an item, or None for a row that is no part of the task. It raises
KeyError, TypeError or ValueError for a row of another form. Reads no files.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from rsd_cli.decoding.answer import final_answer
from rsd_cli.evaluation.choices import LETTERS
from rsd_cli.evaluation.grading import gsm8k_gold

if TYPE_CHECKING:
    from collections.abc import Callable

Row: TypeAlias = "dict[str, Any]"
Reader: TypeAlias = "Callable[[str, Row], Item | None]"

DRESSING = re.compile(r"(?<!\\)\$")
YES_OR_NO = {"true": "(True or False)", "false": "(True or False)", "yes": "(Yes or No)", "no": "(Yes or No)"}
STEM = frozenset({  # what the Qwen2.5-Math evaluation takes from MMLU
    "abstract_algebra", "astronomy", "college_biology", "college_chemistry", "college_computer_science",
    "college_mathematics", "college_physics", "computer_security", "conceptual_physics",
    "electrical_engineering", "elementary_mathematics", "high_school_biology", "high_school_chemistry",
    "high_school_computer_science", "high_school_mathematics", "high_school_physics",
    "high_school_statistics", "machine_learning",
})  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A problem of a task. `doc` is its row; `choices` are the options of a multiple-choice question."""

    id: str
    question: str
    gold: str
    doc: Row
    choices: tuple[str, ...] = ()


def read_plain(number: str, row: Row) -> Item:
    """A question or problem with its answer: MATH-500, AIME, AMC, Gaokao 2023 En."""
    return _item(number, row, _question(row), _undressed(_text(row, "answer")))


def read_gsm8k(number: str, row: Row) -> Item:
    """GSM8K: the number stands behind #### in the answer."""
    return _item(number, row, _question(row), gsm8k_gold(_text(row, "answer")))


def read_solved(number: str, row: Row) -> Item:
    r"""The answer, or else the last \boxed{…} of the solution: Minerva Math, some copies of AIME."""
    gold = row.get("answer")
    gold = final_answer(_text(row, "solution")) if gold is None else str(gold)
    if not gold:
        raise ValueError("the solution has no \\boxed{…}")
    return _item(number, row, _question(row), _undressed(gold))


def read_olympiadbench(number: str, row: Row) -> Item:
    """OlympiadBench: open questions with one or more final answers; theorems to prove have none."""
    golds = [_undressed(str(gold)) for gold in row["final_answer"] or ()]
    return _item(number, row, _question(row), ", ".join(golds))


def read_svamp(number: str, row: Row) -> Item:
    """SVAMP: a body and a question."""
    body = _text(row, "body")
    body = body if body.endswith(".") else f"{body}."
    return _item(number, row, f"{body} {_text(row, 'question')}", _text(row, "answer"))


def read_asdiv(number: str, row: Row) -> Item | None:
    """ASDiv: a body and a question; the unit stands in brackets. Rows with several answers are left out."""
    answer = _text(row, "answer")
    if ";" in answer:
        return None
    gold = re.sub(r"\(.*?\)", "", answer).strip()
    return _item(number, row, f"{_text(row, 'body')} {_text(row, 'question')}", gold)


def read_mmlu_stem(number: str, row: Row) -> Item | None:
    """MMLU: options, and the right one by its index from 0. Other subjects than STEM are left out."""
    subject = row.get("subject", row.get("type"))
    if subject is not None and subject not in STEM:
        return None
    return with_choices(number, row, _question(row), row["choices"], row["answer"])


def read_gpqa(number: str, row: Row) -> Item:
    """GPQA: the right answer and three wrong ones, in an order that the question's own text seeds."""
    if "choices" in row:
        return with_choices(number, row, _question(row), row["choices"], row["answer"])
    right = _text(row, "correct answer")
    options = [right, *(_text(row, f"incorrect answer {i}") for i in (1, 2, 3))]
    question = _question(row)
    random.Random(question).shuffle(options)  # noqa: S311 - an order, no secret
    return with_choices(number, row, question, options, options.index(right))


def with_choices(number: str, row: Row, question: str, choices: Any, answer: Any) -> Item:  # noqa: ANN401
    """A multiple-choice item; the answer is an index from 0, a letter or the right option's own text."""
    options = tuple(str(choice).strip() for choice in choices)
    if isinstance(choices, str) or not 2 <= len(options) <= len(LETTERS):
        raise ValueError(f"2 to {len(LETTERS)} choices are needed")
    gold = _letter(options, answer)
    listed = " ".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
    return Item(number, f"{question}\nAnswer Choices: {listed}", gold, row, options)


def _letter(options: tuple[str, ...], answer: Any) -> str:  # noqa: ANN401
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return LETTERS[answer]
    known = LETTERS[: len(options)]
    text = str(answer).strip()
    if text in options:
        return LETTERS[options.index(text)]
    if len(text) == 1 and text.upper() in known:
        return text.upper()
    raise ValueError(f"{text[:40]!r} is none of the choices {', '.join(known)}")


def _item(number: str, row: Row, question: str, gold: str) -> Item:
    if not gold.strip():
        raise ValueError("the gold answer is empty")
    hint = YES_OR_NO.get(gold.strip().lower())
    return Item(number, f"{question} {hint}" if hint else question, gold.strip(), row)


def _undressed(gold: str) -> str:
    r"""Without the dollars around formulas, but with those that are money: `\$`."""
    return DRESSING.sub("", gold)


def _question(row: Row) -> str:
    key = next((key for key in ("question", "problem", "input") if key in row), "question")
    return _text(row, key)


def field_text(row: Row, key: str) -> str:
    """A field's text as it stands; numbers count as text."""
    value = row[key]
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError(f"{key!r} is {str(value)[:40]!r}")  # noqa: TRY004 - the row is wrong, not the program
    return str(value)


def _text(row: Row, key: str) -> str:
    """A field's text, which may not be empty."""
    text = field_text(row, key).strip()
    if not text:
        raise ValueError(f"{key!r} is {str(row[key])[:40]!r}")
    return text
