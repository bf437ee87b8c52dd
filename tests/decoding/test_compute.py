"""What every strategy decodes, counted twice more: at llama.cpp's door, and from what the record tells."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from rsd_cli.decoding.choosing import delivered
from rsd_cli.decoding.gating import gated
from rsd_cli.decoding.recording import Circumstances, make_record
from rsd_cli.decoding.runner import Runner, finished
from rsd_cli.decoding.strategies import STRATEGIES, Strategy, parse
from rsd_cli.decoding.trajectory import Problem, Settings
from rsd_cli.engine.llama import C
from rsd_cli.engine.memory import Memory
from rsd_cli.engine.sampling import Sampling
from rsd_cli.engine.templates import Message
from rsd_cli.evaluation.costs import cost_of
from rsd_cli.records import Guesses, ModelId, Record
from rsd_cli.rewards.digits import QUESTION as GRADE
from rsd_cli.rewards.digits import asked_behind
from rsd_cli.rewards.families import Solution
from tests.decoding.test_runner import trio
from tests.decoding.tiny_trio import QUESTION, Verdict

if TYPE_CHECKING:
    from rsd_cli.records import Author, Candidate, Rejected, Role, Step
    from tests.decoding.tiny_trio import TinyTrio

__all__ = ["trio"]  # the fixture
CAST = {"draft": ("llama", 1), "target": ("llama", 2), "prm": ("llama", 3)}  # one vocabulary
# Steps are so long that a token more or less at their ends is no 1%, of words that every tokenizer cuts alike.
LIKELY = " the is of and to we so answer number equals then has There are sum step"
LONG = dict.fromkeys((f" {word}" for word in LIKELY.split()), 14.0) | {
    ".\n\n": 8.6,
    "\n\n": 0.0,
    "<eos>": -50.0,
}
SIZES: dict[Role, int] = {"draft": 1_000, "target": 3_000, "prm": 2_000}
NS = {
    "rsd-n": 3, "gsi": 2, "first-k-by-target": 3, "process-best-of-n": 3, "beam": 2, "majority": 2, "best-of-n": 2,
}  # fmt: skip
NAMES = [
    *(f"{name}@{NS[name]}" if name in NS else name for name in STRATEGIES),
    *(
        "glimpse:target",
        "process-best-of-n@2:target",
        "beam@1:target",
        "majority@2:target",
        "best-of-n@2:target",
    ),
]
CASES = [*((name, False) for name in NAMES), ("rsd", True), ("judge", True)]
# where random models pass with some steps and not with others
THRESHOLDS = {"gsi": 0.2, "judge": 0.5, "glimpse": 0.25, "confidence": 0.33}
SETTINGS = Settings(
    threshold=0.5, max_tokens=2000, max_steps=6, system="Answer.", sampling=Sampling(temperature=0.8)
)
QUESTIONS = ("What is it?", "And what is the number then?")


def fourth(step: str) -> bool:
    """A rule that accepts about a quarter of all steps."""
    return sum(step.encode()) % 4 == 0


@pytest.fixture
def decoded(monkeypatch):
    """How many tokens each context was given, without those that pad a batch."""
    counts: Counter[int] = Counter()
    decode, pads = C.llama_decode, Memory._pads

    def counted(pointer, batch):
        counts[id(pointer)] += batch.n_tokens
        return decode(pointer, batch)

    def padded(memory, rows):
        made = pads(memory, rows)
        counts[id(memory._context.pointer)] -= len(made)
        return made

    monkeypatch.setattr(C, "llama_decode", counted)
    monkeypatch.setattr(Memory, "_pads", padded)
    return lambda engine: counts[id(engine.context.pointer)]


@dataclass(frozen=True)
class Piece:
    """What a model wrote for the step at a place, and whether it stayed."""

    place: int
    author: Author
    of: Step | Candidate | Rejected
    stays: bool = False


@dataclass(frozen=True)
class Trace:
    """What a record tells about the tokens that each role must have decoded; no usage is looked at."""

    record: Record
    made: TinyTrio

    @property
    def strategy(self) -> Strategy:
        return parse(self.record.strategy)

    @property
    def pieces(self) -> list[Piece]:
        told = []
        for i, step in enumerate(self.record.steps):
            told += [Piece(i, "draft", step.rejected)] if step.rejected else []
            told += [Piece(i, other.author, other) for other in step.others]
            told.append(Piece(i, step.author, step, stays=True))
        return told

    @property
    def looks(self) -> Author | None:
        return self.strategy.author if self.strategy.name == "glimpse" else None

    def length(self, role: Role, text: str) -> int:
        return len(self.made.engine(role).model.tokenize(text))

    def decoded(self, role: Role) -> int:
        if role == "prm":
            return self.read_by_prm() if role in self.strategy.roles else 0
        work = self.written(role) + self.read(role)
        return work + len(self.made.prompt(role, SETTINGS.system, self.record.question)) if work else 0

    def written(self, role: Author) -> int:
        own = sum(piece.of.tokens for piece in self.pieces if piece.author == role)
        looks = sum(step.author == "draft" for step in self.record.steps)  # rejected ones are pieces
        return own + (looks if self.looks == role == "target" else 0)

    def read(self, role: Author) -> int:
        guesses = [(step.tokens, step.guesses, step.rejected) for step in self.record.steps if step.guesses]
        if role == "target":
            return self.drafts_read() + sum(guessed.refused for _, guessed, _ in guesses)
        fresh = [self.proposed(*each) for each in guesses]
        return self.kept("target", "draft") + sum(fresh)

    @staticmethod
    def proposed(tokens: int, guesses: Guesses, rejected: Rejected | None) -> int:
        """Of a step of the target what the draft sampled for it and read of it, each decoded once."""
        own_refusals = guesses.refusals - bool(rejected and guesses.refused)
        return guesses.proposed - own_refusals + tokens - guesses.accepted

    def kept(self, author: Author, reader: Author) -> int:
        """Another's kept steps before the last place where the reader wrote something."""
        last = max((piece.place for piece in self.pieces if piece.author == reader), default=0)
        last = len(self.record.steps) - 1 if self.looks == reader else last
        steps = [step for step in self.record.steps[:last] if step.author == author and not step.guesses]
        return sum(self.length(reader, step.text) for step in steps)

    def drafts_read(self) -> int:
        """What the target read of the draft: what it had to go on from, or all that it was asked about."""
        drafts = [piece.of for piece in self.pieces if piece.author == "draft"]
        if self.strategy.name == "judge":
            before = (Message("user", self.record.question), Message("assistant", ""))
            prompt = self.made.prompt("target", SETTINGS.system, self.record.question)
            conversation = self.made.prompt("target", SETTINGS.system, GRADE, before)
            asked = len(asked_behind(prompt, conversation, self.made.engine("target").model))
            return sum(self.length("target", draft.text) + asked for draft in drafts)
        if self.strategy.name == "gsi":
            return sum(draft.tokens for draft in drafts)
        return self.kept("draft", "target")

    def read_by_prm(self) -> int:
        """The question; what was judged, each with the PRM's question; and what stayed otherwise, up to the last."""
        judged = [piece for piece in self.pieces if piece.of.reward is not None]
        last = max(piece.place for piece in judged)
        alone = [piece for piece in self.pieces if piece.stays and piece.place < last and self.anew(piece)]
        family = self.made.family
        assert isinstance(family, Verdict)
        start = len(family.context(Solution(self.record.question)))
        asked = self.length("prm", QUESTION) * len(judged)
        return start + asked + sum(self.length("prm", piece.of.text) for piece in (*judged, *alone))

    def anew(self, piece: Piece) -> bool:
        """Whether a kept step was not the last to be judged at its place, where one seat judges them all."""
        instead = self.strategy.width == 1 and any(
            each.author == "target" for each in self.record.steps[piece.place].others
        )
        return piece.of.reward is None or instead


def answered(made: TinyTrio, strategy: Strategy, *, speculative: bool) -> list[list[Record]]:
    """Each question's records: one, or as many as the strategy draws."""
    settings = replace(
        SETTINGS,
        strategy=str(strategy),
        threshold=THRESHOLDS.get(strategy.name, SETTINGS.threshold),
        beta=2000.0 if strategy.name == "gsi" else None,
        speculative=speculative,
    )
    problems = [Problem(asked, asked, branch=i) for asked in QUESTIONS for i in range(strategy.samples)]
    happened = Runner(made, settings, 2 * strategy.width).run(problems)
    models: dict[Role, ModelId] = {role: ModelId(role, None, size) for role, size in SIZES.items()}
    run = Circumstances(models, {}, 0.0, 0.0, 0.0, None, 0)
    found = [done for one in happened if (done := finished(one))]
    found.sort(key=lambda done: done.trajectory.problem.branch)
    records = [make_record(done, run) for done in found]
    return [[record for record in records if record.id == asked] for asked in QUESTIONS]


@pytest.mark.parametrize(("name", "speculative"), CASES)
def test_flops_are_those_of_the_decodes_and_of_the_trace(name, speculative, trio, decoded):
    strategy = parse(name)
    made = trio(CAST, favour=LONG, seats=2 * strategy.width, n_ctx=4096, reproducible=True, rule=fourth)
    by_question = answered(made, strategy, speculative=speculative)
    records = [record for drawn in by_question for record in drawn]
    told = [delivered(drawn) for drawn in by_question] if strategy.choice else records
    cost = cost_of(told)
    for role, size in SIZES.items():
        flops, traced = cost.flops[role].total, sum(Trace(each, made).decoded(role) for each in records)
        assert flops == sum(getattr(record.flops, role) for record in told)
        assert flops == pytest.approx(2 * size * decoded(made.engine(role)), rel=0.01)
        assert flops == pytest.approx(2 * size * traced, rel=0.01)
        assert bool(flops) == (role in strategy.roles)
    if strategy.gates and strategy.name in {*THRESHOLDS, "rsd", "rsd-n", "keep-better"}:
        assert {step.passed for record in records for step in gated(record)} == {True, False}
