"""ROC AUC of rewards on labelled steps (ProcessBench): is a step before the first error?

    python examples/compare_rewards.py ROWS.jsonl --draft DRAFT.gguf --judge JUDGE.gguf -o rewards.jsonl
    python examples/compare_rewards.py ANSWERS.jsonl --questions QUESTIONS.jsonl --draft DRAFT.gguf -o rewards.jsonl

Rows are `{"id", "problem", "steps", "label"}`; `label` is the index of the first wrong step, or -1. With
--questions they are the draft's own answers as `rsd prm calibrate --record` kept them, and the outcome labels all
steps alike: -1 where the final answer is right, else 0. Each row's rewards are appended to the output, and rows that
are there already are not computed again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsd_cli.cli.questions import read_questions
from rsd_cli.decoding.prompts import MATHS
from rsd_cli.engine.context import ContextOptions, Row
from rsd_cli.engine.jobs import Observed
from rsd_cli.engine.llama import Model
from rsd_cli.engine.sampling import CANDIDATES
from rsd_cli.engine.seats import Engine
from rsd_cli.engine.templates import ChatTemplate, Message, Renderer
from rsd_cli.evaluation.grading import is_right
from rsd_cli.rewards.draft_head import DraftHead
from rsd_cli.rewards.families import Solution
from rsd_cli.rewards.heads import load_head
from rsd_cli.rewards.judge import Judge
from rsd_cli.rewards.quality import auc, best_first_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rsd_cli.rewards.families import Reader

    Measure = Callable[[str, Sequence[str]], list[float]]  # a problem and its steps to their rewards


def judged(engine: Engine, reader: Reader, problem: str, steps: Sequence[str]) -> list[float]:
    """The reward of every step, each with what came before it."""
    rewards = []
    for end in range(1, len(steps) + 1):
        solution = Solution(problem, tuple(steps[:end]))
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


def best_threshold(rewards: Sequence[float], good: Sequence[bool]) -> float:
    """The reward that accepts the most good steps less bad ones, each as a share (Youden's index)."""
    values, labels = np.asarray(rewards), np.asarray(good)
    candidates = np.quantile(values, np.linspace(0, 1, 101))
    gains = [(values[labels] >= c).mean() - (values[~labels] >= c).mean() for c in candidates]
    return float(candidates[int(np.argmax(gains))])


def report(path: Path) -> None:
    """One line per reward: AUC and best threshold over all steps of the rows in the file."""
    rows = [json.loads(line) for line in path.open()]
    for name in rows[0]["rewards"]:
        pairs = [
            (reward, row["label"] < 0 or i < row["label"])
            for row in rows
            for i, reward in enumerate(row["rewards"][name])
        ]
        rewards, good = zip(*pairs, strict=True)
        print(
            f"{name}: AUC {auc(rewards, good):.3f} on {len(pairs)} steps of {len(rows)} rows, "
            f"{sum(good) / len(good):.0%} good, mean reward {np.mean(rewards):.3f}, "
            f"best threshold {best_threshold(rewards, good):.3f}"
        )
        errors = best_first_errors([(row["rewards"][name], row["label"]) for row in rows])
        print(
            f"    first error: F1 {errors.f1:.3f} at {errors.threshold:.3f}, the best threshold on these rows"
        )


def own_answers(record: Path, questions: Path) -> list[dict[str, Any]]:
    """The draft's audited answers, labelled by their outcome."""
    answers = [json.loads(line) for line in record.open()][1:]
    tasks = {task.id: task for task in read_questions(questions, len(answers), need_gold=True)}
    return [
        {
            "id": answer["id"],
            "problem": tasks[answer["id"]].question,
            "steps": [step["text"].removesuffix("\n\n") for step in answer["steps"]],
            "label": -1
            if is_right("".join(s["text"] for s in answer["steps"]), tasks[answer["id"]].answer)
            else 0,
        }
        for answer in answers
        if answer["run"] == "audit 0"
    ]


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
    parser.add_argument("--questions", type=Path, help="the rows are answers to these, of rsd prm calibrate")
    parser.add_argument("--limit", type=int)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    done = {json.loads(line)["id"] for line in args.output.open()} if args.output.exists() else set()
    renderer, options = Renderer(), ContextOptions(n_ctx=2048)
    measures: dict[str, Measure] = {}
    for path in args.judge:
        engine = Engine(Model(path), options)
        judge = Judge(engine.model, ChatTemplate(engine.model, renderer))
        measures[f"judge {path.stem}"] = partial(judged, engine, judge)
    if args.draft:
        engine = Engine(Model(args.draft), options)
        template = ChatTemplate(engine.model, renderer)
        measures[f"confidence {args.draft.stem}"] = partial(confident, engine, template)
    if args.draft and args.head:
        reader = DraftHead(engine.model, template, load_head(args.head), MATHS)
        measures[f"head {args.head.stem}"] = partial(judged, engine, reader)
    rows = own_answers(args.rows, args.questions) if args.questions else map(json.loads, args.rows.open())
    with args.output.open("a") as output:
        for row in itertools.islice(rows, args.limit):
            if row["id"] in done:
                continue
            steps = [step + "\n\n" for step in row["steps"]]
            rewards = {name: measure(row["problem"], steps) for name, measure in measures.items()}
            output.write(json.dumps({"id": row["id"], "label": row["label"], "rewards": rewards}) + "\n")
            output.flush()
    renderer.close()
    report(args.output)


if __name__ == "__main__":
    main()
