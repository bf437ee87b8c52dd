"""What whole questions would gain from going to the target, by a reward of the draft's answer: arithmetic on runs.

    python examples/routing.py ANSWERS.jsonl QUESTIONS.jsonl

ANSWERS is what `rsd prm calibrate --at … --record` kept: the draft's and the target's answer to every question.
Where a figure of the draft's rewards is low, the target's answer counts, else the draft's. Accuracy is set against
the chord between draft and target, which choosing at random gives.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsd_cli.cli.questions import read_questions
from rsd_cli.evaluation.grader import is_right

if TYPE_CHECKING:
    from collections.abc import Callable

FIGURES: dict[str, Callable[[list[float]], float]] = {
    "first": lambda rewards: rewards[0],
    "second": lambda rewards: rewards[min(1, len(rewards) - 1)],
    "last": lambda rewards: rewards[-1],
    "lowest": min,
    "mean": lambda rewards: float(np.mean(rewards)),
}
SHARES = (0.2, 0.4, 0.6)  # of the questions that go to the target


def main() -> None:
    """A line for each figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("answers", type=Path)
    parser.add_argument("questions", type=Path)
    args = parser.parse_args()
    kept = [json.loads(line) for line in args.answers.open()][1:]
    by_run = {
        run: {each["id"]: each for each in kept if each["run"] == run} for run in ("audit 0", "target 1")
    }
    drafted, targeted = by_run.values()
    gold = {task.id: task.answer for task in read_questions(args.questions, len(drafted), need_gold=True)}
    ids = sorted(drafted.keys() & targeted.keys())
    right = {
        name: np.array([_is_right(answers[i], gold[i]) for i in ids])
        for name, answers in (("draft", drafted), ("target", targeted))
    }
    tokens = {
        name: np.array([sum(step["tokens"] for step in answers[i]["steps"]) for i in ids])
        for name, answers in (("draft", drafted), ("target", targeted))
    }
    both, only = right["draft"] & right["target"], right["target"] & ~right["draft"]
    print(
        f"{len(ids)} questions: both right {both.mean():.1%}, only the target {only.mean():.1%}, "
        f"draft {right['draft'].mean():.1%}, target {right['target'].mean():.1%}"
    )
    for name, figure in FIGURES.items():
        values = np.array([figure([step["reward"] or 0.0 for step in drafted[i]["steps"]]) for i in ids])
        cells = []
        for share in SHARES:
            routed = values < np.quantile(values, share)
            accuracy = np.where(routed, right["target"], right["draft"]).mean()
            by_target = tokens["target"][routed].sum()
            of_tokens = by_target / (by_target + tokens["draft"][~routed].sum())
            chord = right["draft"].mean() + of_tokens * (right["target"].mean() - right["draft"].mean())
            cells.append(f"{accuracy:.1%} at {of_tokens:.0%} ({100 * (accuracy - chord):+.1f})")
        print(f"{name:8}", "  ".join(cells))


def _is_right(answer: dict[str, Any], gold: str) -> bool:
    """Records of earlier versions do not tell how an answer ended."""
    text = "".join(step["text"] for step in answer["steps"])
    return is_right(text, gold, answer.get("ended_by") or "eog")


if __name__ == "__main__":
    main()
