"""Is greedy speculative text the target's own? Counts, and how close the call was where it is not.

    python examples/speculative.py QUESTIONS.jsonl --rows 50

Both answer each question at temperature 0. Where their tokens differ first, the target's logits are computed anew
behind the same text in two ways: the last token by itself, as the target alone decodes, and the last tokens in one
decode, as a check does. A difference is within the noise if the best two logits are closer than these two ways are.
Wall times are of one run each; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsd_cli.cli import setup
from rsd_cli.cli.questions import Task, read_questions
from rsd_cli.cli.trio import LoadedTrio, Shape
from rsd_cli.decoding.prompts import MATHS
from rsd_cli.decoding.runner import Finished, Runner, finished
from rsd_cli.decoding.trajectory import Problem, Settings
from rsd_cli.engine.jobs import Observed, Read, whole

if TYPE_CHECKING:
    from rsd_cli.engine.seats import Engine

TOGETHER = 5  # tokens of one decode, about those of a check
LIKELY = 10  # tokens whose logits tell the noise


@dataclass(frozen=True)
class Difference:
    """Where two texts part: how far apart the best two logits are there, and how far two ways to compute them."""

    id: str
    place: int
    gap: float
    noise: float

    @property
    def within_noise(self) -> bool:
        return self.gap <= self.noise


@dataclass
class Run:
    """All answers of one strategy."""

    answers: dict[str, Finished]
    seconds: float

    def ids(self, name: str) -> list[int]:
        return [token for step in self.answers[name].trajectory.kept for token in step.ids]

    def used(self, role: str, what: str) -> int:
        counts = [usage for one in self.answers.values() for r, usage in one.usage.items() if r == role]
        return sum(getattr(usage, what) for usage in counts)


def answered(loaded: LoadedTrio, strategy: str, tasks: list[Task], max_tokens: int) -> Run:
    settings = Settings(strategy, max_tokens=max_tokens, system=MATHS)
    problems = [Problem(task.id, task.question) for task in tasks]
    started = time.perf_counter()
    happened = Runner(loaded, settings, loaded.shape.n_seats).run(problems)
    answers = {done.trajectory.problem.id: done for each in happened if (done := finished(each))}
    return Run(answers, time.perf_counter() - started)


def logits_behind(engine: Engine, context: list[int], together: int) -> np.ndarray:
    """All logits behind a context whose last tokens are decoded `together`."""
    every = tuple(range(engine.model.n_vocab))
    engine.forget()
    for end, wanted in ((len(context) - together, (0,)), (len(context), every)):
        engine.submit(0, Read(context[:end], wanted, (end,)))
        while engine.busy:
            updates = whole(engine.step())
    engine.release(0)
    (observed,) = [each for each in updates if isinstance(each, Observed)]
    return np.array(observed.logits)


def first_difference(
    engine: Engine, name: str, prompt: list[int], own: list[int], other: list[int]
) -> Difference:
    place = next(
        (i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), min(len(own), len(other))
    )
    context = [*prompt, *own[:place]]
    alone, together = (logits_behind(engine, context, n) for n in (1, TOGETHER))
    best = np.argsort(alone)[-LIKELY:]
    gap, noise = alone[best[-1]] - alone[best[-2]], np.abs(alone - together)[best].max()
    return Difference(name, place, float(gap), float(noise))


def main() -> None:
    """Print the counts and the differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", type=Path)
    parser.add_argument("--trio", default="starter")
    parser.add_argument("--draft")
    parser.add_argument("--target")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--seats", type=int, default=1)
    parser.add_argument("-n", "--max-tokens", type=int, default=400)
    args = parser.parse_args()
    choice = setup.Choice(args.trio, args.draft, args.target)
    cast = setup.find(choice, setup.Access(args.models), ("draft", "target")).trio
    loaded = LoadedTrio(cast.models, None, Shape(n_seats=args.seats, reproducible=True), lambda: False)
    tasks = read_questions(args.questions, args.rows, need_gold=False)
    answered(loaded, "speculative", tasks[:1], 32)  # warm
    own, speculative = (answered(loaded, name, tasks, args.max_tokens) for name in ("target", "speculative"))
    differences = []
    for task in tasks:
        if own.ids(task.id) != speculative.ids(task.id):
            prompt = loaded.prompt("target", MATHS, task.question)
            tokens = own.ids(task.id), speculative.ids(task.id)
            found = first_difference(loaded.engine("target"), task.id, prompt, *tokens)
            differences.append(found)
            print(
                f"{found.id}: other from token {found.place} on, where the best two logits are {found.gap:.4f} "
                f"apart; noise {found.noise:.4f}"
            )
    loaded.close()
    close = sum(each.within_noise for each in differences)
    print(
        f"{len(tasks) - len(differences)} of {len(tasks)} the same; {len(differences)} not, {close} within noise"
    )
    proposed, in_vain = (speculative.used("draft", what) for what in ("generated", "discarded"))
    print(f"{proposed} tokens proposed, {1 - in_vain / max(proposed, 1):.0%} accepted")
    print(f"wall time {speculative.seconds:.1f} s, target alone {own.seconds:.1f} s")
    summary = {
        "rows": len(tasks),
        "same": len(tasks) - len(differences),
        "within_noise": close,
        "differences": [asdict(each) for each in differences],
        "proposed": proposed,
        "accepted": proposed - in_vain,
        "tokens": speculative.used("target", "generated"),
        "seconds": {"target": own.seconds, "speculative": speculative.seconds},
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
