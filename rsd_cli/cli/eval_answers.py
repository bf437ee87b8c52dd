"""The questions of one strategy while it answers them: drawn, collected, graded, or given up.

What becomes of a question is one sample, whatever happens to it. Writes no files and loads no models.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rsd_cli.cli.recording import recorded
from rsd_cli.decoding.choosing import aggregate_of, score
from rsd_cli.decoding.policies import known
from rsd_cli.decoding.runner import Failed, Finished
from rsd_cli.decoding.strategies import parse
from rsd_cli.decoding.trajectory import Problem
from rsd_cli.evaluation.choosing import counting
from rsd_cli.evaluation.samples import Branch, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rsd_cli.cli.crash import Crash
    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.decoding.strategies import Strategy
    from rsd_cli.evaluation.grader import Grader
    from rsd_cli.evaluation.items import Item
    from rsd_cli.evaluation.taskdata import TaskData
    from rsd_cli.records import Record

CRASHED = "The engine crashed while it answered this question and no other."


@dataclass
class Answers:
    """Makes problems of questions and samples of what the runner tells; `name` is the strategy's in the table."""

    name: str
    strategy: Strategy
    data: TaskData
    grader: Grader
    described: dict[str, Any]
    loaded: LoadedTrio
    crash: Crash
    write: Callable[[Sample], None]
    _open: dict[int, dict[int, Record]] = field(default_factory=dict)

    def problems(self, places: Sequence[int]) -> Iterator[Problem | None]:
        """The questions at these places, those first that were in flight when the engine crashed.

        None is retried that this command has tried in vain before the crash.
        """
        left = [place for place in places if self._id(place) not in self.crash.failed]
        yield from self._suspects(left)
        for place in left:
            if self._id(place) not in self.crash.ids:
                yield from self._begin(place)

    def take(self, happened: object) -> None:
        """Understand what the runner tells; the first failure of a question's answers ends it."""
        if isinstance(happened, Failed):
            place = int(happened.problem.id)
            if self._open.pop(place, None) is not None:
                self._fail(place, str(happened.error))
        elif isinstance(happened, Finished) and happened.ended_by != "interrupted":
            self._collect(happened)

    def _suspects(self, places: Sequence[int]) -> Iterator[Problem | None]:
        """One at a time, but for those that crashed the engine alone; those of later strategies stay suspected."""
        for place in places:
            if self._id(place) in self.crash.killers:
                self._fail(place, CRASHED)
            elif self._id(place) in self.crash.suspects:
                self.crash.try_alone(self._id(place))
                yield from self._begin(place)
                while place in self._open:
                    yield None
        self.crash.tried()

    def _id(self, place: int) -> str:
        return f"{self.data.task.name} {self.name} {place}"

    def _begin(self, place: int) -> Iterator[Problem]:
        self._open[place] = {}
        self.crash.note(map(self._id, self._open))
        for branch in range(self.strategy.samples):
            if place in self._open:
                yield Problem(str(place), self.data.items[place].question, branch=branch)

    def _fail(self, place: int, message: str) -> None:
        item = self.data.items[place]
        self.write(Sample(self.name, place, dict(item.doc), item.gold, (), False, None, "error", message))
        self.crash.failed.add(self._id(place))
        self.crash.note(map(self._id, self._open))

    def _collect(self, finished: Finished) -> None:
        problem = finished.trajectory.problem
        place = int(problem.id)
        drawn = self._open.get(place)
        if drawn is None:
            return
        drawn[problem.branch] = recorded(finished, self.loaded, self.described, finished.trajectory.began)
        if len(drawn) == self.strategy.samples:
            del self._open[place]
            self.write(self._graded(place, [drawn[branch] for branch in sorted(drawn)]))
            self.crash.note(map(self._id, self._open), answered=True)

    def _graded(self, place: int, records: list[Record]) -> Sample:
        item = self.data.items[place]
        branches = tuple(self._branch(item, record) for record in records)
        counts = counting(branches, self.strategy.choice)
        sample = Sample.single(self.name, place, dict(item.doc), item.gold, counts)
        return replace(sample, branches=branches)

    def _branch(self, item: Item, record: Record) -> Branch:
        answer_type = self.data.task.answer_type
        grade = self.grader.grade(record.answer, record.ended_by, item.gold, answer_type, item.choices)
        by_prm = parse(record.strategy).choice == "best"
        earned = known(score(record, aggregate_of(record))) if by_prm else None
        return Branch(record, grade.right, grade.extracted, grade.outcome, earned)
