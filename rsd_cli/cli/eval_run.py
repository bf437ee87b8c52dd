"""One strategy on one task: answers what is missing, grades it, and keeps each question as a line."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rsd_cli.cli.recording import recorded
from rsd_cli.decoding.choosing import aggregate_of, score
from rsd_cli.decoding.events import Streamed
from rsd_cli.decoding.runner import Failed, Finished, Runner
from rsd_cli.decoding.strategies import parse
from rsd_cli.decoding.trajectory import Problem
from rsd_cli.engine.pace import Pace
from rsd_cli.evaluation.choosing import choose
from rsd_cli.evaluation.samples import Branch, Sample, read_samples
from rsd_cli.evaluation.sharing import can_give, shared
from rsd_cli.evaluation.speed import COUNTING, engine_rates
from rsd_cli.output import OwnFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.decoding.strategies import Strategy
    from rsd_cli.decoding.trajectory import Settings
    from rsd_cli.display.counting import Tell
    from rsd_cli.engine.seats import Engine
    from rsd_cli.evaluation.grader import Grader
    from rsd_cli.evaluation.items import Item
    from rsd_cli.evaluation.taskdata import TaskData
    from rsd_cli.records import Record, Role

NEWS_SECONDS = 1.0
PROBE_PROMPT, PROBE_TOKENS = 64, 16


@dataclass
class Course:
    """How a strategy is getting on. With many seats the first questions end late, so tokens are told as well."""

    name: str
    right: int = 0
    done: int = 0
    tokens: int = 0
    began: float = field(default_factory=time.perf_counter)
    _told: float = 0.0

    def add(self, sample: Sample) -> None:
        """A question is over."""
        self.right, self.done = self.right + sample.right, self.done + 1

    def is_news(self) -> bool:
        """Count a token; says whether there has been no news for a while."""
        self.tokens += 1
        now = time.perf_counter()
        if now - self._told < NEWS_SECONDS:
            return False
        self._told = now
        return True

    @property
    def words(self) -> str:
        """So many right, so fast."""
        rate = self.tokens / max(1e-6, time.perf_counter() - self.began)
        return f"{self.name}: {self.right} of {self.done} right, {rate:.0f} tokens/s"


@dataclass
class Pass:
    """A strategy on a task; `place` has its samples, `seconds` and `paces` tell of this process alone.

    With a `giver` it draws nothing and chooses among what that one drew.
    """

    name: str
    settings: Settings
    data: TaskData
    place: Path
    described: dict[str, Any]
    grader: Grader
    seconds: float = 0.0
    paces: dict[Role, Pace] = field(default_factory=dict)
    giver: Pass | None = None
    _open: dict[str, dict[int, Record]] = field(default_factory=dict)

    @property
    def strategy(self) -> Strategy:
        """Which one it is."""
        return parse(self.settings.strategy)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The questions of this run that are answered, in their order."""
        known = read_samples(self.place) if self.place.exists() else ()
        wanted = range(len(self.data.items))
        return tuple(sorted((s for s in known if s.doc_id in wanted), key=lambda sample: sample.doc_id))

    @property
    def missing(self) -> list[int]:
        """The places of items that have no sample."""
        done = {sample.doc_id for sample in self.samples}
        return [i for i in range(len(self.data.items)) if i not in done]

    def draws_for(self, other: Pass) -> bool:
        """Whether this one's answers would do for another pass over the same questions."""
        alike = replace(self.settings, strategy=other.settings.strategy)
        if other.strategy.choice == "majority":
            alike = replace(alike, aggregate=other.settings.aggregate)
        return self.data is other.data and can_give(self.strategy, other.strategy) and alike == other.settings

    def take(self, tell: Tell) -> None:
        """Choose anew among the giver's answers."""
        own, course, missing = OwnFile(self.place, str(self.place)), Course(self.name), set(self.missing)
        try:
            for given in self.giver.samples if self.giver else ():
                if given.doc_id in missing:
                    sample = shared(given, self.name, self.strategy)
                    own.append(sample.to_json())
                    course.add(sample)
                    tell(course.words)
        finally:
            own.close()

    def run(self, loaded: LoadedTrio, tell: Tell) -> None:
        """Answer what is missing, until all is done or somebody interrupts."""
        own, began = OwnFile(self.place, str(self.place)), time.perf_counter()
        missing, course = self.missing, Course(self.name)
        before = {role: engine.pace.copy() for role, engine in loaded.loaded().items()}
        try:
            runner = Runner(
                loaded, self.settings, loaded.shape.n_seats, side_by_side=loaded.on_several_devices
            )
            for happened in runner.run(self._problems(missing)):
                sample = self._sample(happened, loaded)
                if sample:
                    own.append(sample.to_json())
                    course.add(sample)
                    tell(course.words)
                elif isinstance(happened, Streamed) and course.is_news():
                    tell(course.words, 0)
        finally:
            own.close()
            self.seconds = time.perf_counter() - began
        engines, rows = loaded.loaded(), loaded.shape.n_streams
        self.paces = {role: engine.pace - before.get(role, Pace()) for role, engine in engines.items()}
        known = self.paces.get("target", Pace())
        if self.strategy.has_pair and not self.missing and rows not in known.sizes:
            self.paces["target"] = known + _full_decodes(loaded.engine("target"), rows)
        for engine in engines.values():
            engine.forget()  # the next strategy shall not find these questions in its memory

    def _problems(self, missing: list[int]) -> Iterator[Problem]:
        for place in missing:
            item = self.data.items[place]
            for branch in range(self.strategy.samples):
                yield Problem(str(place), item.question, branch=branch)

    def _sample(self, happened: object, loaded: LoadedTrio) -> Sample | None:
        if isinstance(happened, Failed):
            place = int(happened.problem.id)
            self._open.pop(happened.problem.id, None)
            item = self.data.items[place]
            return Sample(self.name, place, dict(item.doc), item.gold, (), False, None, "empty")
        if not isinstance(happened, Finished) or happened.ended_by == "interrupted":
            return None
        problem = happened.trajectory.problem
        drawn = self._open.setdefault(problem.id, {})
        drawn[problem.branch] = recorded(happened, loaded, self.described, happened.trajectory.began)
        if len(drawn) < self.strategy.samples:
            return None
        del self._open[problem.id]
        return self._graded(int(problem.id), [drawn[branch] for branch in sorted(drawn)])

    def _graded(self, place: int, records: list[Record]) -> Sample:
        item = self.data.items[place]
        branches = tuple(self._branch(item, record) for record in records)
        how = self.strategy.choice
        counts = (choose(branches, how) if how else None) or branches[0]
        sample = Sample.single(self.name, place, dict(item.doc), item.gold, counts)
        return replace(sample, branches=branches)

    def _branch(self, item: Item, record: Record) -> Branch:
        answer_type = self.data.task.answer_type
        grade = self.grader.grade(record.answer, record.ended_by, item.gold, answer_type, item.choices)
        earned = score(record, aggregate_of(record)) if parse(record.strategy).choice == "best" else math.nan
        return Branch(
            record, grade.right, grade.extracted, grade.outcome, None if math.isnan(earned) else earned
        )


def _full_decodes(engine: Engine, rows: int) -> Pace:
    """A few decodes as full as the target alone has them: the verdict asks what they take."""
    before, length = engine.pace.copy(), min(PROBE_PROMPT, engine.n_ctx - PROBE_TOKENS - 1)
    engine_rates(engine, engine.model.tokenize(COUNTING)[:length], rows, PROBE_TOKENS)
    return engine.pace - before


def share(passes: Sequence[Pass], began: Callable[[Pass], bool]) -> None:
    """Let each draw answers only if no other one draws them; those that judge most answers draw first.

    One that `began` to draw for itself in an earlier run goes on so.
    """
    choosing = [each for each in passes if each.strategy.choice]
    drawing: list[Pass] = []
    for each in sorted(choosing, key=lambda one: (one.strategy.choice == "majority", -one.strategy.n)):
        givers = () if began(each) else drawing
        each.giver = next((other for other in givers if other.draws_for(each)), None)
        if each.giver is None:
            drawing.append(each)
