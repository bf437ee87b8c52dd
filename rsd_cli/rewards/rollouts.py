"""Solutions sampled by a generator to train a head on: steps, what was free to observe, and their labels.

A problem's samples share a seat, so its prompt is read once. It samples and labels; it trains nothing and
writes no files.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rsd_cli.engine.jobs import Observed, Read, Write, Written, whole
from rsd_cli.engine.sampling import Sampling

if TYPE_CHECKING:
    from rsd_cli.engine.jobs import Job
    from rsd_cli.engine.seats import Engine
    from rsd_cli.records import EndedBy

State = NDArray[np.float16]
IsRight: TypeAlias = "Callable[[str, str, EndedBy], bool]"  # (solution, gold answer, how it ended)
NEVER = "\0"  # a separator that no text holds: the whole rest is one step


@dataclass(frozen=True)
class Question:
    """A problem with a checkable answer, and its prompt in the generator's tokens."""

    id: str
    text: str
    gold: str
    prompt: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """How solutions are sampled.

    For a share of the steps (`labelled`), `completions` are tried from it until one reaches the gold answer.
    """

    samples: int = 2
    completions: int = 8
    labelled: float = 0.34
    temperature: float = 0.7
    max_tokens: int = 400
    max_steps: int = 30
    seed: int = 0
    separator: str = "\n\n"


@dataclass(frozen=True)
class SeenStep:
    """A step with what its decoding gave for free.

    `hidden` is the state of its last token and `mean` that of the tokens before it, or `hidden` where that is not had
    (n_embd values each); `logprob`, `lowest` and `entropy` are mean, minimum and mean over its tokens.
    """

    text: str
    ids: tuple[int, ...]
    logprob: float
    lowest: float
    entropy: float
    hidden: State
    mean: State
    reaches: bool | None = (
        None  # whether a completion from behind it reached the gold answer; None: not tried
    )


@dataclass(frozen=True)
class Rollout:
    """A sampled solution. `right` is the outcome: the final answer is the gold one."""

    id: str
    sample: int
    question: str
    steps: tuple[SeenStep, ...]
    right: bool
    gold: str | None = None  # those of earlier versions do not tell it

    @property
    def key(self) -> str:
        """Name of the rollout among all of its run."""
        return f"{self.id}/{self.sample}"

    def to_json(self) -> str:
        """One line; states as base64 of float16."""
        data = asdict(self)
        for step in data["steps"]:
            step |= {key: base64.b64encode(step[key].tobytes()).decode() for key in ("hidden", "mean")}
        return json.dumps(data)

    @classmethod
    def from_json(cls, line: str) -> Rollout:
        """The inverse of `to_json`."""
        data = json.loads(line)
        return cls(**data | {"steps": tuple(_seen(step) for step in data["steps"])})


def _seen(data: dict[str, Any]) -> SeenStep:
    states = {key: np.frombuffer(base64.b64decode(data[key]), np.float16) for key in ("hidden", "mean")}
    return SeenStep(**data | states | {"ids": tuple(data["ids"])})


Sampled = Generator["Job", Any, None]  # jobs for one seat; is sent what came of each


def drive(engine: Engine, tasks: Iterable[Sampled]) -> Iterator[None]:
    """Keep every seat busy with a task until all are done; yields after each step of the engine."""
    waiting, seated = iter(tasks), dict[int, Sampled]()

    def begin(seat: int) -> None:
        for task in waiting:
            job = next(task, None)
            if job is not None:
                seated[seat] = task
                engine.submit(seat, job)
                return

    for seat in engine.seats:
        begin(seat.index)
    while seated:
        for update in whole(engine.step()):
            if isinstance(update, (Written, Observed)):
                try:
                    engine.submit(update.seat, seated[update.seat].send(update))
                except StopIteration:
                    del seated[update.seat]
                    begin(update.seat)
        yield


def seed_of(*parts: object) -> int:
    """32 bits that depend on these parts alone."""
    return int.from_bytes(
        hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=4).digest(), "little"
    )


def sample(
    question: Question, samples: Iterable[int], plan: Plan, is_right: IsRight, done: Callable[[Rollout], None]
) -> Sampled:
    """Sample solutions of one problem, one after the other."""
    for number in samples:
        steps, ended_by = yield from _solve(question, number, plan)
        right = is_right("".join(step.text for step in steps), question.gold, ended_by)
        done(Rollout(question.id, number, question.text, steps, right, question.gold))


def _solve(
    question: Question, number: int, plan: Plan
) -> Generator[Job, Any, tuple[tuple[SeenStep, ...], EndedBy]]:
    steps: list[SeenStep] = []
    context, left = list(question.prompt), plan.max_tokens
    job = _step_job(question, number, plan, context, left, 0)
    while True:
        written: Written = yield job
        context, left = [*context, *written.tokens], left - len(written.tokens)
        job = _step_job(question, number, plan, context, max(1, left), len(steps) + 1)
        observed: Observed = yield Read(context, (), (len(context) - 1, len(context)), hidden=True, ahead=job)
        steps.append(_make_step(written, observed))
        if written.ended != "separator":
            return tuple(steps), written.ended
        if left <= 0 or len(steps) >= plan.max_steps:
            return tuple(steps), "max_tokens" if left <= 0 else "max_steps"


def _step_job(
    question: Question, number: int, plan: Plan, context: Sequence[int], left: int, step: int
) -> Write:
    seed = seed_of(plan.seed, question.id, number, step)
    sampling = Sampling(temperature=plan.temperature)
    return Write(tuple(context), sampling, seed, plan.separator, left, watch=True, states=True)


def _make_step(written: Written, observed: Observed) -> SeenStep:
    logprobs = [token.logprob for token in written.drawn]
    hidden = np.asarray(observed.hidden, np.float16)
    mean = hidden if written.state is None else written.state.astype(np.float16)
    entropy = float(np.mean([token.entropy for token in written.drawn]))
    return SeenStep(
        written.text, written.tokens, float(np.mean(logprobs)), min(logprobs), entropy, hidden, mean
    )


def complete(
    question: Question, rollout: Rollout, plan: Plan, is_right: IsRight, done: Callable[[Rollout], None]
) -> Sampled:
    """Label a share of a rollout's steps: does at least one of `completions` from behind it reach the answer?

    Math-Shepherd's hard label (arXiv 2312.08935, section 3.3). The rollout's own end is the first completion.
    """
    labelled: list[SeenStep] = []
    for i, step in enumerate(rollout.steps):
        chosen = seed_of(rollout.key, i, "chosen") % 100 < 100 * plan.labelled
        reaches = (yield from _reaches(question, rollout, i, plan, is_right)) if chosen else None
        labelled.append(replace(step, reaches=reaches))
    done(replace(rollout, steps=tuple(labelled)))


def _reaches(
    question: Question, rollout: Rollout, i: int, plan: Plan, is_right: IsRight
) -> Generator[Job, Any, bool]:
    """Whether the gold answer can be reached from behind step `i`."""
    steps = rollout.steps[: i + 1]
    if rollout.right or len(steps) == len(rollout.steps):
        return rollout.right
    context = [*question.prompt, *(token for step in steps for token in step.ids)]
    text, sampling = "".join(step.text for step in steps), Sampling(temperature=plan.temperature)
    left = max(1, plan.max_tokens + len(question.prompt) - len(context))
    for number in range(plan.completions - 1):
        seed = seed_of(plan.seed, rollout.key, i, "completion", number)
        written: Written = yield Write(context, sampling, seed, NEVER, left)
        ended_by = "max_tokens" if written.ended == "separator" else written.ended
        if is_right(text + written.text, question.gold, ended_by):
            return True
    return False
