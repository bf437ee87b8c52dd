"""Is greedy speculative text the target's own? Counts, and how close the call was where it is not.

    python examples/speculative.py QUESTIONS.jsonl --rows 50
    python examples/speculative.py FOLDER --rows 50
    python examples/speculative.py QUESTIONS.jsonl --rows 50 --exact    # a token costs as much as eight

Both answer each question at temperature 0, here or, in FOLDER, in an `rsd eval` with the strategies target and
speculative (whose texts are cut into tokens anew). Where their tokens differ first, the target's logits are computed
anew behind the same text in several ways: the prompt whole and the answer token by token, as the target alone decodes
with one seat, and all of it in pieces of a few tokens, as checks and many seats do. A difference is within the noise
if the logits of the two tokens are closer than their difference varies from way to way.
With --exact every token is decoded as one of eight, whoever decodes it and whatever is beside it: the sums are the
same to the bit, and the texts have to be. Seconds are of one run each, in FOLDER those in the models; the last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsd_cli.cli import setup
from rsd_cli.cli.questions import GoldQuestion, read_questions
from rsd_cli.cli.shape import Shape
from rsd_cli.cli.trio import LoadedTrio
from rsd_cli.decoding.prompts import MATHS
from rsd_cli.decoding.runner import Runner, finished
from rsd_cli.decoding.trajectory import Problem, Settings
from rsd_cli.engine.context import EVEN
from rsd_cli.engine.jobs import Observed, Read, whole
from rsd_cli.evaluation.samples import read_samples
from rsd_cli.records import Usage

if TYPE_CHECKING:
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.seats import Engine

WAYS = (1, 5, 6, 7, 16)  # tokens of a decode: alone, as checks have them, as many rows have them
STRATEGIES = ("target", "speculative")
COUNTS = ("generated", "discarded")  # of a usage


class InEights(Shape):
    """With fewer than eight streams what is written is decoded like what is checked."""

    @property
    def n_streams(self) -> int:
        return min(self.n_seats, EVEN - 1)


@dataclass(frozen=True)
class Difference:
    """Where two texts part: how far apart the logits of the two tokens are, and how much that varies.

    `is_between_best` tells whether they are the two likeliest, `is_undecided` whether the ways to compute them differ
    in which of them is likelier.
    """

    id: str
    place: int
    gap: float
    noise: float
    is_between_best: bool
    is_undecided: bool

    @property
    def within_noise(self) -> bool:
        return self.gap <= self.noise


@dataclass(frozen=True)
class Answer:
    """An answer in the target's tokens, and what the draft did for it."""

    question: str
    ids: list[int]
    draft: Usage


@dataclass(frozen=True)
class Run:
    """All answers of one strategy by their questions' names."""

    answers: dict[str, Answer]
    seconds: float


def answered(loaded: LoadedTrio, strategy: str, tasks: list[GoldQuestion], max_tokens: int) -> Run:
    """Answers given here and now."""
    settings = Settings(strategy, max_tokens=max_tokens, system=MATHS)
    problems = [Problem(task.id, task.question) for task in tasks]
    started = time.perf_counter()
    happened = Runner(loaded, settings, loaded.shape.n_seats).run(problems)
    answers = {}
    for done in filter(None, map(finished, happened)):
        problem, kept = done.trajectory.problem, done.trajectory.kept
        ids = [token for step in kept for token in step.ids]
        answers[problem.id] = Answer(problem.question, ids, done.usage.get("draft", Usage()))
    return Run(answers, time.perf_counter() - started)


def read(folder: Path, strategy: str, model: Model, rows: int) -> Run:
    """Answers of an evaluation."""
    (place,) = folder.glob(f"samples_*_{strategy}.jsonl")
    samples = sorted(read_samples(place), key=lambda sample: sample.doc_id)[:rows]
    answers, seconds = {}, 0.0
    for sample in samples:
        (record,) = sample.records
        ids = [token for step in record.steps for token in model.tokenize(step.text)]
        answers[record.id] = Answer(record.question, ids, record.usage["draft"])
        seconds += sum(spent.prompt_ms + spent.decode_ms for spent in record.timings.roles.values()) / 1000
    return Run(answers, seconds)


def logits_behind(engine: Engine, prompt: list[int], own: list[int], together: int) -> np.ndarray:
    """All logits behind a prompt and an answer decoded so many tokens at once; at 1 the prompt is read whole."""
    context, every = [*prompt, *own], tuple(range(engine.model.n_vocab))
    first = 0 if together > 1 else len(prompt) - 1
    engine.forget()
    for end in reversed(range(len(context), first, -together)):
        engine.submit(0, Read(context[:end], every if end == len(context) else (0,), (end,)))
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
    found = np.stack([logits_behind(engine, prompt, own[:place], n) for n in WAYS])
    one, two = (token_at(place, ids, engine.model, found[0]) for ids in (own, other))
    gaps = found[:, one] - found[:, two]
    best = {int(token) for token in np.argsort(found[0])[-2:]}
    return Difference(
        name,
        place,
        gap=abs(float(gaps[0])),
        noise=float(np.ptp(gaps)),
        is_between_best={one, two} == best,
        is_undecided=bool(gaps.min() < 0 < gaps.max()),
    )


def token_at(place: int, ids: list[int], model: Model, logits: np.ndarray) -> int:
    """The token there; behind the last one the likeliest that ends a turn."""
    if place < len(ids):
        return ids[place]
    return max(filter(model.ends_generation, range(model.n_vocab)), key=logits.__getitem__)


def main() -> None:
    """Print the counts and the differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", type=Path, help="questions as JSONL, or the folder of an evaluation")
    parser.add_argument("--trio", default="starter")
    parser.add_argument("--draft")
    parser.add_argument("--target")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--seats", type=int, default=1)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("-n", "--max-tokens", type=int, default=400)
    args = parser.parse_args()
    choice = setup.Choice(args.trio, args.draft, args.target)
    cast = setup.find(choice, setup.Access(args.models), ("draft", "target")).trio
    kind = InEights if args.exact else Shape
    shape = kind(n_seats=args.seats, reproducible=True, exact=args.exact)
    loaded = LoadedTrio(cast.models, None, shape, lambda: False)
    target = loaded.engine("target")
    if args.questions.is_dir():
        own, other = (read(args.questions, name, target.model, args.rows) for name in STRATEGIES)
    else:
        tasks = read_questions(args.questions, args.rows, need_gold=False)
        answered(loaded, "speculative", tasks[:1], 32)  # warm
        own, other = (answered(loaded, name, tasks, args.max_tokens) for name in STRATEGIES)
    differences = []
    for name, mine in own.answers.items():
        if mine.ids != other.answers[name].ids:
            prompt = loaded.prompt("target", MATHS, mine.question)
            found = first_difference(target, name, prompt, mine.ids, other.answers[name].ids)
            differences.append(found)
            print(
                f"{found.id}: other from token {found.place} on, where the logits of the two are {found.gap:.4f} "
                f"apart; noise {found.noise:.4f}"
            )
    loaded.close()
    report(own, other, differences)


def report(own: Run, other: Run, differences: list[Difference]) -> None:
    """The counts, and as the last line one JSON object."""
    n, close = len(own.answers), sum(each.within_noise for each in differences)
    print(f"{n - len(differences)} of {n} the same; {len(differences)} not, {close} within noise")
    between, undecided = (
        sum(map(attrgetter(name), differences)) for name in ("is_between_best", "is_undecided")
    )
    print(
        f"{between} are between the two likeliest tokens; in {undecided} the ways differ in which is likelier"
    )
    proposed, in_vain = (sum(getattr(a.draft, what) for a in other.answers.values()) for what in COUNTS)
    print(f"{proposed} tokens proposed, {1 - in_vain / max(proposed, 1):.0%} accepted")
    print(f"{other.seconds:.1f} s, the target alone {own.seconds:.1f} s")
    summary = {
        "rows": n,
        "same": n - len(differences),
        "within_noise": close,
        "differences": [asdict(each) for each in differences],
        "proposed": proposed,
        "accepted": proposed - in_vain,
        "seconds": {"target": own.seconds, "speculative": other.seconds},
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
