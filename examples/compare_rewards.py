"""How rewards rank labelled steps: ROC AUC, calibration error, and the first errors of ProcessBench.

    python examples/compare_rewards.py ROWS.jsonl --draft DRAFT.gguf --judge JUDGE.gguf -o rewards.jsonl
    python examples/compare_rewards.py ANSWERS.jsonl --questions QUESTIONS.jsonl --draft DRAFT.gguf -o rewards.jsonl
    python examples/compare_rewards.py DIR/labelled.jsonl --rollouts --draft DRAFT.gguf -o rewards.jsonl

Rows are `{"id", "problem", "steps", "label"}`; `label` is the index of the first wrong step, or -1: the steps
before it are good. With --questions they are the draft's own answers as `rsd prm calibrate --record` kept them, and
all steps of an answer are good if its final answer is right. With --rollouts they are those that `rsd prm train`
labelled: a step is good if a completion from behind it reached the answer; steps that were not tried are left out.
Each row's rewards are appended to the output, and rows that are there already are not computed again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsd_cli.cli.questions import read_questions
from rsd_cli.decoding.prompts import MATHS
from rsd_cli.engine.context import ContextOptions, Row
from rsd_cli.engine.jobs import Observed
from rsd_cli.engine.llama import Model
from rsd_cli.engine.sampling import CANDIDATES
from rsd_cli.engine.seats import Engine
from rsd_cli.engine.templates import ChatTemplate, Message, Renderer
from rsd_cli.evaluation.grader import is_right
from rsd_cli.rewards.draft_head import DraftHead
from rsd_cli.rewards.families import Solution
from rsd_cli.rewards.heads import load_head
from rsd_cli.rewards.judge import Judge
from rsd_cli.rewards.quality import auc, calibration_error
from rsd_cli.rewards.rollouts import Rollout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from rsd_cli.records import EndedBy
    from rsd_cli.rewards.families import Reader

    Measure = Callable[[str, Sequence[str]], list[float]]  # a problem and its steps to their rewards

RESAMPLES = 500  # of the solutions, for standard errors


@dataclass(frozen=True)
class Labelled:
    """A solution; `good` has a label for each step, None where there is none. `first_error` is ProcessBench's."""

    id: str
    problem: str
    steps: list[str]
    good: list[bool | None]
    first_error: int | None = None


@dataclass(frozen=True)
class Scored:
    """Rewards of a solution's steps by the name of who gave them."""

    id: str
    good: list[bool | None]
    first_error: int | None
    rewards: dict[str, list[float]]


def judged(engine: Engine, reader: Reader, problem: str, steps: Sequence[str]) -> list[float]:
    """The reward of every step, each with what came before it."""
    rewards = []
    for end in range(1, len(steps) + 1):
        solution = Solution(problem, tuple(steps[:end]), ended=end == len(steps))
        engine.submit(0, reader.job(solution))
        while engine.busy:
            seen = [update for update in engine.step() if isinstance(update, Observed)]
        rewards.append(reader.reward(seen[0], solution))
    engine.release(0)
    return rewards


def confident(engine: Engine, template: ChatTemplate, problem: str, steps: Sequence[str]) -> list[float]:
    """What `confidence` would say had the draft written these very tokens."""
    engine.forget()  # what the context holds is this function's alone
    context = engine.context
    prompt = template.encode([Message("system", MATHS), Message("user", problem)])
    out = context.decode([Row(0, 0, prompt, output=True)])[0]
    position, before, rewards = len(prompt), context.logits(out).copy(), []
    for step in steps:
        ids = engine.model.tokenize(step)
        rows = [Row(0, position + i, [token], output=True) for i, token in enumerate(ids)]
        outputs = context.decode(rows)
        logits = [before, *(context.logits(row).copy() for row in outputs)]
        rewards.append(
            math.exp(float(np.mean([logprob(row, t) for row, t in zip(logits, ids, strict=False)])))
        )
        position, before = position + len(ids), logits[-1]
    context.cut(0, 0)
    return rewards


def logprob(logits: NDArray[np.float32], token: int) -> float:
    """Log-probability within the best candidates, as the engine's sampler normalises it."""
    best = np.partition(logits, -CANDIDATES)[-CANDIDATES:].astype(np.float64)
    return float(logits[token] - np.logaddexp.reduce(best))


@dataclass(frozen=True)
class Steps:
    """The labelled steps of one reward: its values, whether each is good, and the number of its solution."""

    rewards: NDArray[np.float64]
    good: NDArray[np.bool_]
    solution: NDArray[np.int_]

    @classmethod
    def of(cls, rows: Sequence[Scored], name: str) -> Steps:
        """The steps that have a label."""
        seen = [
            (reward, good, number)
            for number, row in enumerate(rows)
            for reward, good in zip(row.rewards[name], row.good, strict=True)
            if good is not None
        ]
        rewards, labels, numbers = zip(*seen, strict=True)
        return cls(np.asarray(rewards), np.asarray(labels), np.asarray(numbers))

    def auc(self) -> float:
        """Over all pairs of a good and a bad step."""
        return auc(self.rewards, self.good)

    def auc_within(self) -> float:
        """Over the pairs within one solution alone: what tells steps apart, not how hard the questions are."""
        pairs, won = 0, 0.0
        for number in np.unique(self.solution):
            own = self.solution == number
            good, bad = self.rewards[own & self.good], self.rewards[own & ~self.good]
            gaps = good[:, None] - bad[None, :]
            pairs += gaps.size
            won += float((gaps > 0).sum() + (gaps == 0).sum() / 2)
        return won / pairs if pairs else math.nan

    def error(self) -> float:
        """Standard error of the AUC, by drawing solutions anew."""
        rng = np.random.default_rng(0)
        numbers = np.unique(self.solution)
        places = {number: np.flatnonzero(self.solution == number) for number in numbers}
        drawn = (
            np.concatenate([places[number] for number in rng.choice(numbers, len(numbers))])
            for _ in range(RESAMPLES)
        )
        return float(np.nanstd([auc(self.rewards[rows], self.good[rows]) for rows in drawn]))


@dataclass(frozen=True)
class FirstErrors:
    """ProcessBench's figures: accuracy on wrong and on correct solutions, and their harmonic mean."""

    threshold: float
    wrong: float
    correct: float

    @property
    def f1(self) -> float:
        """Harmonic mean of both accuracies."""
        return (
            2 * self.wrong * self.correct / (self.wrong + self.correct) if self.wrong + self.correct else 0.0
        )


def first_errors(solutions: Sequence[tuple[Sequence[float], int]], threshold: float) -> FirstErrors:
    """Solutions are (rewards, index of the first wrong step or -1); the first reward below the threshold predicts."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for rewards, label in solutions:
        guess = next((i for i, reward in enumerate(rewards) if reward < threshold), -1)
        hits[label >= 0].append(guess == label)
    wrong, correct = (float(np.mean(hits[kind])) if hits[kind] else 0.0 for kind in (True, False))
    return FirstErrors(threshold, wrong, correct)


def best_first_errors(solutions: Sequence[tuple[Sequence[float], int]]) -> FirstErrors:
    """The threshold with the best F1, among the rewards' percentiles."""
    rewards = np.concatenate([np.asarray(rewards) for rewards, _ in solutions])
    candidates = np.unique(np.quantile(rewards, np.linspace(0, 1, 101)))
    return max((first_errors(solutions, float(c)) for c in candidates), key=lambda figures: figures.f1)


def report(rows: Sequence[Scored]) -> None:
    """For each reward its figures over all labelled steps, and ProcessBench's where first errors are known."""
    for name in rows[0].rewards:
        steps = Steps.of(rows, name)
        print(
            f"{name}: AUC {steps.auc():.3f} ±{steps.error():.3f}, within solutions {steps.auc_within():.3f}, "
            f"calibration error {calibration_error(steps.rewards, steps.good):.3f}; {len(steps.good)} steps of "
            f"{len(rows)} rows, {steps.good.mean():.0%} good, mean reward {steps.rewards.mean():.3f}"
        )
        known = [(row.rewards[name], row.first_error) for row in rows if row.first_error is not None]
        if known:
            errors = best_first_errors([(rewards, label) for rewards, label in known])
            print(
                f"    first error: F1 {errors.f1:.3f} at {errors.threshold:.3f}, the best threshold on these rows"
            )


def process_bench(path: Path) -> Iterator[Labelled]:
    """Rows of `label`, the index of the first wrong step or -1."""
    for row in map(json.loads, path.open()):
        first = row["label"]
        good: list[bool | None] = [first < 0 or i < first for i in range(len(row["steps"]))]
        yield Labelled(row["id"], row["problem"], row["steps"], good, first)


def own_answers(record: Path, questions: Path) -> Iterator[Labelled]:
    """The draft's audited answers, labelled by their outcome."""
    answers = [json.loads(line) for line in record.open()][1:]
    tasks = {task.id: task for task in read_questions(questions, len(answers), need_gold=True)}
    for answer in answers:
        if answer["run"] == "audit 0":
            task, steps = tasks[answer["id"]], [step["text"] for step in answer["steps"]]
            ended_by: EndedBy = answer.get("ended_by") or "eog"  # earlier versions do not tell
            right: list[bool | None] = [is_right("".join(steps), task.answer, ended_by)] * len(steps)
            yield Labelled(task.id, task.question, [step.removesuffix("\n\n") for step in steps], right)


def labelled_rollouts(path: Path) -> Iterator[Labelled]:
    """Rollouts with labels by completions."""
    for rollout in map(Rollout.from_json, path.open()):
        steps = [step.text.removesuffix("\n\n") for step in rollout.steps]
        yield Labelled(rollout.key, rollout.question, steps, [step.reaches for step in rollout.steps])


def read(args: argparse.Namespace) -> Iterable[Labelled]:
    """The rows in the form that the options name."""
    if args.rollouts:
        return labelled_rollouts(args.rows)
    return own_answers(args.rows, args.questions) if args.questions else process_bench(args.rows)


def measures_of(args: argparse.Namespace, renderer: Renderer) -> dict[str, Measure]:
    """What to measure, by name."""
    options = ContextOptions(n_ctx=2048)
    measures: dict[str, Measure] = {}
    for path in args.judge:
        engine = Engine(Model(path), replace(options, exact=True))
        judge = Judge(engine.model, ChatTemplate(engine.model, renderer))
        measures[f"judge {path.stem}"] = partial(judged, engine, judge)
    if args.draft:
        engine = Engine(Model(args.draft), options)
        template = ChatTemplate(engine.model, renderer)
        measures[f"confidence {args.draft.stem}"] = partial(confident, engine, template)
        if args.head:
            reader = DraftHead(engine.model, template, load_head(args.head), MATHS)
            measures[f"head {args.head.stem}"] = partial(judged, engine, reader)
    return measures


def score(rows: Iterable[Labelled], measures: Mapping[str, Measure], output: Path) -> None:
    """Append the rewards of the rows that are not there yet."""
    done = {row.id for row in scored(output)}
    with output.open("a") as file:
        for row in rows:
            if row.id not in done:
                *before, last = row.steps
                steps = [*(step + "\n\n" for step in before), last]
                rewards = {name: measure(row.problem, steps) for name, measure in measures.items()}
                file.write(json.dumps(asdict(Scored(row.id, row.good, row.first_error, rewards))) + "\n")
                file.flush()


def scored(path: Path) -> list[Scored]:
    """What an earlier run has computed."""
    return [Scored(**json.loads(line)) for line in path.open()] if path.exists() else []


def main() -> None:
    """Compute what is missing, then report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path)
    parser.add_argument("--draft", type=Path, help="GGUF whose confidence is measured")
    parser.add_argument(
        "--judge", type=Path, action="append", default=[], help="GGUF to ask; may be repeated"
    )
    parser.add_argument("--head", type=Path, help="a draft-head on the draft")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--questions", type=Path, help="the rows are answers to these, of rsd prm calibrate")
    form.add_argument(
        "--rollouts", action="store_true", help="the rows are labelled rollouts of rsd prm train"
    )
    parser.add_argument("--limit", type=int)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    renderer = Renderer()
    score(itertools.islice(read(args), args.limit), measures_of(args, renderer), args.output)
    renderer.close()
    report(scored(args.output))


if __name__ == "__main__":
    main()
