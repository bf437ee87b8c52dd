"""Questions with gold answers from a JSONL file, for the commands that train and calibrate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

FORM = 'Each line is a JSON object like {"question": "…", "answer": "…"}.'


@dataclass(frozen=True)
class Task:
    """A problem; `gold` is its answer where that is known."""

    id: str
    question: str
    gold: str | None

    @property
    def answer(self) -> str:
        """The gold answer of a task that has one."""
        return self.gold or ""


def read_questions(path: Path, rows: int, *, need_gold: bool) -> list[Task]:
    """The first rows of the file; the answer may be GSM8K's, with the number behind ####."""
    from rsd_cli.evaluation.grading import gsm8k_gold

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
    tasks = []
    for place, (number, line) in enumerate(numbered):
        task = _task(str(place), line, f"Line {number} of {path}", gsm8k_gold)
        if need_gold and task.gold is None:
            raise UsageError(f"Line {number} of {path} has no answer.", FORM)
        tasks.append(task)
    return tasks


def with_formulas(tasks: Iterable[Task]) -> bool:
    """Whether the gold answers of some are formulas, which math-verify compares."""
    from rsd_cli.evaluation.grader import is_formula

    return any(is_formula(task.answer) for task in tasks)


def _task(ident: str, line: str, where: str, gold_of: Callable[[str], str]) -> Task:
    try:
        row = json.loads(line)
        question = row.get("question", row.get("problem"))
        if not isinstance(question, str) or not question.strip():
            raise TypeError
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"{where} has no question.", FORM) from None
    gold = row.get("answer")
    return Task(ident, question, (None if gold is None else gold_of(str(gold))) or None)
