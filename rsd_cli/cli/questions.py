"""Questions with gold answers from a JSONL file, for the commands that train and calibrate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FORM = 'Each line is a JSON object like {"question": "…", "answer": "…"}.'


@dataclass(frozen=True)
class GoldQuestion:
    """A question; `gold` is its answer where that is known."""

    id: str
    question: str
    gold: str | None

    @property
    def answer(self) -> str:
        """The gold answer of a question that has one."""
        return self.gold or ""


def read_questions(path: Path, rows: int, *, need_gold: bool) -> list[GoldQuestion]:
    """The first rows of the file; the answer may be GSM8K's, with the number behind ####."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        lines = enumerate(text.split("\n"), start=1)  # JSON may hold what else ends a line
        numbered = [(number, line) for number, line in lines if line.strip()][:rows]
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.", "Name a JSONL file.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from error
    if not numbered:
        raise UsageError(f"{path} is empty.", FORM)
    questions = []
    for place, (number, line) in enumerate(numbered):
        question = _read(str(place), line, f"Line {number} of {path}")
        if need_gold and question.gold is None:
            raise UsageError(f"Line {number} of {path} has no answer.", FORM)
        questions.append(question)
    return questions


def with_formulas(questions: Iterable[GoldQuestion]) -> bool:
    """Whether the gold answers of some are formulas, which math-verify compares."""
    from rsd_cli.evaluation.grader import is_formula

    return any(is_formula(question.answer) for question in questions)


def _read(ident: str, line: str, where: str) -> GoldQuestion:
    from rsd_cli.evaluation.grading import gsm8k_gold

    try:
        row = json.loads(line)
        question = row.get("question", row.get("problem"))
        if not isinstance(question, str) or not question.strip():
            raise TypeError
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"{where} has no question.", FORM) from None
    gold = row.get("answer")
    return GoldQuestion(ident, question, (None if gold is None else gsm8k_gold(str(gold))) or None)
