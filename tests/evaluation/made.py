"""Answered questions as a run would give them: an ideal engine's token counts around drawn steps and rewards."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rsd_cli.evaluation.accounts import StrategyRun
from rsd_cli.evaluation.runs import Circumstances, Evaluation, TaskRun, Times
from rsd_cli.evaluation.samples import Branch, Sample
from rsd_cli.records import Flops, ModelId, Record, Rejected, RoleTime, Step, Timings, Usage

if TYPE_CHECKING:
    from rsd_cli.records import Author, Role

SIZES: dict[Role, int] = {"draft": 500_000_000, "target": 1_500_000_000, "prm": 1_500_000_000}
READ_MS: dict[Role, float] = {"draft": 10.0, "target": 30.0, "prm": 30.0}
WRITE_MS: dict[Role, float] = {"draft": 30.0, "target": 90.0, "prm": 90.0}
PROMPT = 60
SKILL: dict[str, float] = {"draft": 0.45, "target": 0.75}
WORDS = ("so we add", "both numbers", "and get half", "of what is left", "after", "the first", "was sold")


@dataclass
class Trace:
    """An answer being written: what every role has in its memory, and what that took."""

    rng: random.Random
    usage: dict[Role, Usage] = field(default_factory=dict)
    known: dict[Role, int] = field(default_factory=dict)  # kept tokens that a role has seen
    kept: int = 0
    steps: list[Step] = field(default_factory=list)

    def catch_up(self, role: Role) -> None:
        """Read the prompt, if it is the first time, and kept steps that are new to the role."""
        first = role not in self.usage
        new = self.kept - self.known.get(role, 0) + (PROMPT if first else 0)
        reused = 0 if first else PROMPT + self.known[role]
        self.usage[role] = self.usage.get(role, Usage(prompt=PROMPT)) + Usage(fed=new, reused=reused)
        self.known[role] = self.kept

    def write(self, role: Role) -> tuple[str, int]:
        self.catch_up(role)
        tokens = self.rng.randint(8, 40)
        self.usage[role] += Usage(generated=tokens)
        return " ".join(self.rng.choices(WORDS, k=tokens)) + ".\n\n", tokens

    def judge(self, tokens: int, quality: float) -> float:
        self.catch_up("prm")
        self.usage["prm"] += Usage(fed=tokens)
        return min(1.0, max(0.0, self.rng.gauss(0.35 + 0.5 * quality, 0.2)))

    def keep(
        self, author: Author, text: str, tokens: int, reward: float | None, rejected: Rejected | None
    ) -> None:
        self.steps.append(Step(text, author, reward, tokens, tokens * WRITE_MS[author], rejected))
        self.kept += tokens
        self.known[author] = self.kept
        if author == "draft" and reward is not None:
            self.known["prm"] = self.kept

    def discard(self, role: Role, tokens: int) -> None:
        self.usage[role] += Usage(discarded=tokens)


def trace(rng: random.Random, policy: str, threshold: float, quality: float) -> Trace:
    """Steps by `draft`, `target`, `rsd`, or `judged` (the draft's, each with a reward)."""
    made = Trace(rng)
    for _ in range(rng.randint(3, 8)):
        if policy == "target":
            made.keep("target", *made.write("target"), None, None)
            continue
        text, tokens = made.write("draft")
        reward = None if policy == "draft" else made.judge(tokens, quality)
        if policy == "rsd" and reward is not None and reward < threshold:
            made.discard("draft", tokens)
            made.discard("prm", tokens)
            made.keep("target", *made.write("target"), None, Rejected(text, reward, tokens))
        else:
            made.keep("draft", text, tokens, reward, None)
    return made


def record_of(made: Trace, **changes: Any) -> Record:
    """The record of a trace whose steps and usage are given."""
    flops = {role: 2.0 * SIZES[role] * used.decoded for role, used in made.usage.items()}
    times = {
        role: RoleTime(used.fed * READ_MS[role], used.generated * WRITE_MS[role])
        for role, used in made.usage.items()
    }
    answer = "".join(step.text for step in made.steps)
    fields: dict[str, Any] = {
        "id": "0",
        "question": "How many?",
        "answer": answer,
        "final_answer": "1",
        "steps": tuple(made.steps),
        "usage": {role: made.usage.get(role, Usage()) for role in SIZES},
        "flops": Flops(
            flops.get("draft", 0.0),
            flops.get("target", 0.0),
            flops.get("prm", 0.0),
            2.0 * SIZES["target"] * (PROMPT + made.kept),
        ),
        "timings": Timings(100.0, 200.0, sum(t.prompt_ms + t.decode_ms for t in times.values()), times),
        "ended_by": "eog",
        "strategy": "rsd",
        "settings": {"threshold": 0.7, "max_tokens": 2048},
        "models": {role: ModelId(f"tiny-{role}", "ab" * 32, size) for role, size in SIZES.items()},
        "versions": {"rsd": "0.1.0", "llama_cpp": "abc"},
        "seed": 0,
    }
    return Record(**(fields | changes))


def branch_of(
    rng: random.Random, policy: str, strategy: str, threshold: float, doc_id: int, gold: int
) -> Branch:
    """An answer whose chance to be right grows with the target's share, on a question that may be hard."""
    hardness = random.Random(doc_id).random()
    made = trace(rng, policy, threshold, 1.2 * (1 - hardness))
    by_target = sum(step.tokens for step in made.steps if step.author == "target") / made.kept
    skill = SKILL["draft"] + (SKILL["target"] - SKILL["draft"]) * min(1.0, 1.3 * by_target)
    drawn = rng.random()
    right = drawn < skill + 0.5 - hardness
    final = str(gold if right else gold + rng.randint(1, 3))
    if not right and drawn > 0.97:
        record = record_of(made, ended_by="max_tokens", final_answer=None, strategy=strategy)
        return Branch(record, False, None, "truncated")
    last = made.steps[-1]
    made.steps[-1] = Step(
        f"So the answer is $\\boxed{{{final}}}$.",
        last.author,
        last.reward,
        last.tokens,
        last.ms,
        last.rejected,
    )
    record = record_of(
        made,
        id=str(doc_id),
        question=doc_of(doc_id)["question"],
        final_answer=final,
        strategy=strategy,
        settings={"threshold": threshold, "max_tokens": 2048, "temperature": 0.0},
    )
    rewards = [step.reward for step in record.steps if step.reward is not None]
    score = rewards[-1] if policy == "judged" else None
    return Branch(record, right, final, "right" if right else "wrong", score)


def doc_of(doc_id: int) -> dict[str, Any]:
    rng = random.Random(doc_id)
    return {
        "question": f"Natalia sold {doc_id + 3} clips and {' '.join(rng.choices(WORDS, k=20))}. How many?"
    }


def sample_of(
    name: str, policy: str, doc_id: int, n: int = 1, threshold: float = 0.7, seed: int = 0
) -> Sample:
    """A sample of one answer, or of n of which the most frequent one, or the best scored, counts."""
    rng = random.Random(f"{name}/{doc_id}/{seed}")
    gold = 10 + doc_id
    strategy = name.partition(":")[0]
    branches = tuple(branch_of(rng, policy, strategy, threshold, doc_id, gold) for _ in range(n))
    finals = [branch.extracted for branch in branches if branch.extracted]
    if policy == "judged":
        best = max(branches, key=lambda branch: branch.score if branch.score is not None else -1.0)
    else:
        most = max(finals, key=finals.count, default=None)
        best = next(branch for branch in branches if branch.extracted == most)
    return Sample(name, doc_id, doc_of(doc_id), str(gold), branches, best.right, best.extracted, best.outcome)


STRATEGIES: dict[str, dict[str, Any]] = {
    "rsd": {"policy": "rsd"},
    "rsd:threshold=0.4": {"policy": "rsd", "threshold": 0.4},
    "rsd:threshold=0.9": {"policy": "rsd", "threshold": 0.9},
    "target": {"policy": "target"},
    "draft": {"policy": "draft"},
    "majority@8": {"policy": "draft", "n": 8},
    "best-of-n@8": {"policy": "judged", "n": 8},
}


OTHERS: dict[str, dict[str, Any]] = {
    "speculative": {"policy": "target"},
    "majority@8:target": {"policy": "target", "n": 8},
}


def runs_of(
    n: int = 40, names: tuple[str, ...] = tuple(STRATEGIES), seed: int = 0
) -> tuple[StrategyRun, ...]:
    """All strategies on the same questions."""
    known = STRATEGIES | OTHERS
    return tuple(
        StrategyRun(name, tuple(sample_of(name, doc_id=i, seed=seed, **known[name]) for i in range(n)))
        for name in names
    )


def evaluation_of(
    n: int = 20, names: tuple[str, ...] = tuple(STRATEGIES), seed: int = 0, **changes: Any
) -> Evaluation:
    """A whole evaluation of one task."""
    return Evaluation((TaskRun("gsm8k", runs_of(n, names, seed)),), circumstances(**changes))


def circumstances(**changes: Any) -> Circumstances:
    fields: dict[str, Any] = {
        "times": Times("2026-05-01T10:00:00+00:00", "2026-05-01T11:30:00+00:00"),
        "versions": {"rsd": "0.1.0", "llama_cpp": "abc"},
        "config": {"threshold": 0.7, "parallel": 8},
        "seeds": {"seed": 0},
        "hardware": {"cores": 2},
        "models": {role: ModelId(f"tiny-{role}", None, size) for role, size in SIZES.items()},
    }
    return Circumstances(**(fields | changes))
