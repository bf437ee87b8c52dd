r"""Grades answers: what was answered, whether it is the gold answer, and if not, how it failed.

The final answer is the last \boxed{…} behind any thinking part; an answer that ended by itself and has no box counts
by its last number, or by the letter that it names. Quick rules decide where they are sure (`grading`), formulas go to
math-verify in a process with limits (`maths_worker`). Reads no files.
"""

from __future__ import annotations

import importlib.util
import re
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from rsd_cli.decoding.answer import final_answer, without_thinking
from rsd_cli.errors import RSDError
from rsd_cli.evaluation import notation
from rsd_cli.evaluation.choices import LETTERS, letter_of_box, letter_of_text
from rsd_cli.evaluation.grading import as_number, denies, last_number, same_answer, same_text
from rsd_cli.evaluation.maths import Comparer, Verdict

if TYPE_CHECKING:
    from rsd_cli.records import EndedBy

AnswerType = Literal["numeric", "maths", "choice"]
Outcome = Literal["right", "wrong", "truncated", "empty", "unparsable", "timeout"]

LONGEST = 1_000  # characters of a final answer that are still looked at
DEEPEST = 40  # brackets within brackets
TOLERANCE = Fraction(1, 10_000)  # of a decimal, relative: as in the Qwen2.5-Math evaluation
BASED = re.compile(r"([0-9A-Fa-f]+)(?:_(?:\{(\d+)\}|(\d+)))?")
OPENING, CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class Grade:
    """How an answer did.

    `extracted` is the final answer as it stands in the text, of a multiple choice its letter. "truncated": the text
    was cut short and has no boxed answer; one that has is graded by it. "empty": there is no answer; "unparsable":
    what there is can't be read; "timeout": comparing it took too long or too much memory.
    """

    right: bool
    extracted: str | None
    outcome: Outcome


class Grader:
    """Grades one answer at a time; the process that compares formulas starts with the first one and is kept."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._maths = Comparer(seconds)

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._maths.close()

    def grade(
        self,
        answer: str,
        ended_by: EndedBy,
        gold: str,
        answer_type: AnswerType,
        choices: tuple[str, ...] = (),
    ) -> Grade:
        """Grade an answer's text; `choices` are the options of a multiple-choice question, without letters.

        Raises RSDError where a formula must be compared and math-verify is not installed, or does not start.
        """
        truncated = ended_by != "eog"
        extracted = extract(answer, answer_type, len(choices), boxed_only=truncated)
        if not extracted:
            return Grade(False, None, "truncated" if truncated else "empty")
        if answer_type == "choice":
            extracted = letter_of_box(extracted, choices) or extracted
        outcome = self.compare(extracted, gold, answer_type, choices)
        return Grade(outcome == "right", extracted, outcome)

    def is_right(self, answer: str, gold: str, ended_by: EndedBy = "eog") -> bool:
        """Whether a text has the gold answer: by quick rules, but for a formula."""
        if is_formula(gold):
            return self.grade(answer, ended_by, gold, "maths").right
        return is_right(answer, gold, ended_by)

    def known_right(self, answer: str, gold: str, ended_by: EndedBy = "eog") -> bool | None:
        """The same; None where only math-verify could tell, and it is not installed or does not start."""
        if is_right(answer, gold, ended_by):
            return True
        return self.is_right(answer, gold, ended_by) if self.can_grade(gold) else None

    def can_grade(self, gold: str) -> bool:
        """Whether answers can be compared with this one here; for a formula math-verify is started."""
        return not is_formula(gold) or (_has_maths() and self._maths.starts())

    def compare(
        self, extracted: str, gold: str, answer_type: AnswerType, choices: tuple[str, ...] = ()
    ) -> Verdict:
        """Whether a final answer is the gold one."""
        if answer_type == "choice":
            letter = letter_of_box(extracted, choices)
            return "unparsable" if letter is None else _verdict(letter == gold.strip().upper())
        if answer_type == "numeric":
            return _compare_numbers(extracted.rsplit("=", 1)[-1], gold)
        return self._compare_formulas(extracted, gold)

    def _compare_formulas(self, given: str, gold: str) -> Verdict:
        if as_number(gold) is not None and as_number(given) is not None:
            return _compare_numbers(given, gold)
        if same_text(given, gold):
            return "right"
        if notation.is_words(gold) or denies(given) != denies(gold):
            return "wrong"
        if len(given) > LONGEST or _depth(given) > DEEPEST:
            return "unparsable"
        based = _same_in_base(given, gold)
        return self._maths.compare(given, gold) if based is None else _verdict(based)


def is_right(answer: str, gold: str, ended_by: EndedBy = "eog") -> bool:
    """Whether a text has the gold answer, by quick rules alone."""
    return same_answer(extract(answer, "numeric", boxed_only=ended_by != "eog") or "", gold)


def is_formula(gold: str) -> bool:
    """Whether quick rules may take a right answer for a wrong one: no number, no words, no letter of a choice."""
    is_letter = len(gold.strip()) == 1 and gold.strip() in LETTERS
    return bool(gold.strip()) and as_number(gold) is None and not notation.is_words(gold) and not is_letter


def _has_maths() -> bool:
    return importlib.util.find_spec("math_verify") is not None


def need_maths(answer_type: AnswerType) -> None:
    """Refuse to begin a run whose formulas could not be graded; math-verify is started to see."""
    if answer_type != "maths":
        return
    if not _has_maths():
        raise RSDError(
            "Answers that are formulas are graded by math-verify, which is not installed.",
            "pip install 'rsd-cli[eval]'",
        )
    with closing(Comparer(1.0)) as comparer:
        comparer.running()


def extract(
    answer: str, answer_type: AnswerType, options: int = 0, *, boxed_only: bool = False
) -> str | None:
    r"""The final answer of a text, None if there is none; of a multiple choice among so many options, if known.

    A thinking part that never ends holds no answer. `boxed_only` is for texts that were cut short: a number in the
    middle of a derivation is no answer.
    """
    boxed = final_answer(answer)
    if boxed or boxed_only:
        return boxed or None
    said = without_thinking(answer)
    return letter_of_text(said, options) if answer_type == "choice" else last_number(said)


def _compare_numbers(given: str, gold: str) -> Verdict:
    """Whole golds exactly, others within `TOLERANCE` if one is a decimal; a percentage also as a share."""
    number, wanted = as_number(given), as_number(gold)
    if number is None or wanted is None:
        return "right" if same_text(given, gold) else "unparsable"
    scales = {Fraction(1)}
    if ("%" in given) != ("%" in gold):
        scales.add(Fraction(1, 100) if "%" in given else Fraction(100))
    is_decimal = "." in given + gold
    return _verdict(any(_close(number * scale, wanted, is_decimal=is_decimal) for scale in scales))


def _close(number: Fraction, wanted: Fraction, *, is_decimal: bool) -> bool:
    if number == wanted:
        return True
    return is_decimal and wanted.denominator != 1 and abs(number - wanted) <= TOLERANCE * abs(wanted)


def _same_in_base(given: str, gold: str) -> bool | None:
    r"""For golds such as 52_8: the same digits, and the same base if the answer names one; None for others."""
    wanted = BASED.fullmatch(notation.compact(gold))
    if not wanted or not (wanted[2] or wanted[3]):
        return None
    said = BASED.fullmatch(notation.compact(given))
    if not said or said[1].lower() != wanted[1].lower():
        return False
    return (said[2] or said[3] or wanted[2] or wanted[3]) == (wanted[2] or wanted[3])


def _depth(text: str) -> int:
    """How deep brackets are nested; unbalanced ones count too."""
    depth = deepest = 0
    for character in text:
        depth += (character in OPENING) - (character in CLOSING)
        deepest = max(deepest, abs(depth))
    return deepest


def _verdict(right: bool) -> Verdict:  # noqa: FBT001 - it names the two
    return "right" if right else "wrong"
