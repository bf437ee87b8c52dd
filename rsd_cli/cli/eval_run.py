"""One strategy on one task: answers what is missing and keeps each question as a line, with what it took."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rsd_cli.cli.eval_answers import Answers
from rsd_cli.decoding.events import Streamed
from rsd_cli.decoding.runner import Runner
from rsd_cli.decoding.strategies import parse
from rsd_cli.engine.llama import DecodeAborted
from rsd_cli.engine.pace import Pace
from rsd_cli.engine.sampling import Sampling
from rsd_cli.evaluation.samples import read_samples
from rsd_cli.evaluation.sharing import can_give, shared
from rsd_cli.evaluation.speed import COUNTING, engine_rates
from rsd_cli.output import OwnFile
from rsd_cli.registry.files import kind_at

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rsd_cli.cli.crash import Crash
    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.decoding.strategies import Strategy
    from rsd_cli.decoding.trajectory import Settings
    from rsd_cli.display.counting import Tell
    from rsd_cli.evaluation.grader import Grader
    from rsd_cli.evaluation.samples import Sample
    from rsd_cli.evaluation.taskdata import TaskData
    from rsd_cli.records import Role

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
    _lap: float = field(default_factory=time.perf_counter)

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

    def lap(self) -> float:
        """Seconds since the last question was over, or since it began."""
        before, self._lap = self._lap, time.perf_counter()
        return self._lap - before

    @property
    def words(self) -> str:
        """So many right, so fast."""
        rate = self.tokens / max(1e-6, time.perf_counter() - self.began)
        return f"{self.name}: {self.right} of {self.done} right, {rate:.0f} tokens/s"


@dataclass
class Pass:
    """A strategy on a task; `place` has its samples, `paces` tell of this process alone.

    With a `giver` it draws nothing and chooses among what that one drew. `retry` is for questions that failed.
    """

    name: str
    settings: Settings
    data: TaskData
    place: Path
    described: dict[str, Any]
    grader: Grader
    retry: bool = False
    paces: dict[Role, Pace] = field(default_factory=dict)
    giver: Pass | None = None

    @property
    def strategy(self) -> Strategy:
        """Which one it is."""
        return parse(self.settings.strategy)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The questions of this run that are over, in their order."""
        known = read_samples(self.place) if kind_at(self.place) else ()
        wanted = range(len(self.data.items))
        return tuple(sorted((s for s in known if s.doc_id in wanted), key=lambda sample: sample.doc_id))

    @property
    def missing(self) -> list[int]:
        """The places of items that have no sample, or one to `retry`."""
        done = {sample.doc_id for sample in self.samples if sample.error is None or not self.retry}
        return [i for i in range(len(self.data.items)) if i not in done]

    @property
    def has_drawn(self) -> bool:
        """Whether it has answered questions by itself."""
        return any(sample.seconds is not None for sample in self.samples)

    def draws_for(self, other: Pass) -> bool:
        """Whether this one's answers would do for another pass over the same questions."""
        alike = replace(self.settings, strategy=other.settings.strategy)
        if other.strategy.choice == "majority":
            alike = replace(alike, aggregate=other.settings.aggregate)
        if self.data is not other.data or alike != other.settings:
            return False
        return can_give(self.strategy, other.strategy, self.settings.sampling or Sampling())

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

    def run(self, loaded: LoadedTrio, crash: Crash, tell: Tell) -> None:
        """Answer what is missing, until all is done or somebody interrupts."""
        try:
            loaded.wait_for(self.strategy.roles)  # what loading takes is not the strategy's
        except DecodeAborted:
            return
        before = {role: engine.pace.copy() for role, engine in loaded.loaded().items()}
        try:
            self._draw(loaded, crash, tell)
            self._fill_up(loaded, before.get("target", Pace()))
        finally:
            engines = loaded.loaded()
            self.paces = {role: engine.pace - before.get(role, Pace()) for role, engine in engines.items()}
            for engine in engines.values():
                engine.forget()  # the next strategy shall not find these questions in its memory

    def _draw(self, loaded: LoadedTrio, crash: Crash, tell: Tell) -> None:
        own, course = OwnFile(self.place, str(self.place)), Course(self.name)

        def write(sample: Sample) -> None:
            own.append(replace(sample, seconds=course.lap()).to_json())
            course.add(sample)
            tell(course.words)

        answers = Answers(
            self.name, self.strategy, self.data, self.grader, self.described, loaded, crash, write
        )
        runner = Runner(loaded, self.settings, loaded.shape.n_seats, side_by_side=loaded.on_several_devices)
        try:
            for happened in runner.run(answers.problems(self.missing)):
                answers.take(happened)
                if isinstance(happened, Streamed) and course.is_news():
                    tell(course.words, 0)
        finally:
            own.close()

    def _fill_up(self, loaded: LoadedTrio, before: Pace) -> None:
        """A few decodes as full as the target alone has them, if there were none: the verdict asks what they take."""
        if not self.strategy.has_pair or self.missing:
            return
        engine, rows = loaded.engine("target"), loaded.shape.n_streams
        if rows not in (engine.pace - before).sizes:
            length = min(PROBE_PROMPT, engine.n_ctx - PROBE_TOKENS - 1)
            with suppress(DecodeAborted):
                engine_rates(engine, engine.model.tokenize(COUNTING)[:length], rows, PROBE_TOKENS)


def share(passes: Sequence[Pass]) -> None:
    """Let each draw answers only if no other one draws them; those that judge most answers draw first.

    One that began to draw for itself in an earlier run goes on so.
    """
    choosing = [each for each in passes if each.strategy.choice]
    drawing: list[Pass] = []
    for each in sorted(choosing, key=lambda one: (one.strategy.choice == "majority", -one.strategy.n)):
        givers = () if each.has_drawn else drawing
        each.giver = next((other for other in givers if other.draws_for(each)), None)
        if each.giver is None:
            drawing.append(each)


def template_hashes(loaded: LoadedTrio) -> dict[Role, str]:
    """The sha256 of each loaded model's own chat template."""
    found = {role: engine.model.chat_template() for role, engine in loaded.loaded().items()}
    return {role: hashlib.sha256(text.encode()).hexdigest() for role, text in found.items() if text}
