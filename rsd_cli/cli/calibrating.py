"""The runs of a calibration: the audit of the draft, the answers at thresholds, and what they say together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rsd_cli.cli.calibration_record import Answered, digest
from rsd_cli.decoding.participants import TooLongError
from rsd_cli.decoding.runner import Failed, Runner, finished
from rsd_cli.decoding.trajectory import Problem
from rsd_cli.display.calibration import Report
from rsd_cli.display.counting import counting
from rsd_cli.display.steps import counted
from rsd_cli.engine.jobs import ContextOverflow
from rsd_cli.errors import RSDError, UsageError
from rsd_cli.evaluation.calibration import (
    Costs,
    Graded,
    JudgedStep,
    Measured,
    above_chord,
    curve,
    recommend,
    threshold_for,
)
from rsd_cli.registry.names import number_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.cli.calibration_record import Answers
    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.cli.questions import GoldQuestion
    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.decoding.trajectory import Settings
    from rsd_cli.evaluation.calibration import Gain
    from rsd_cli.evaluation.grader import Grader


@dataclass
class Calibration:
    """The runs over all questions, and what they say. A question that is too long for a model is left out of all."""

    loaded: LoadedTrio
    tasks: list[GoldQuestion]
    settings: Settings
    answers: Answers
    grader: Grader
    interrupt: Interrupt
    color: bool
    left_out: list[RSDError] = field(default_factory=list)

    def report(self, name: str, share: float | None, sweep: int, at: Sequence[float]) -> Report | None:
        """Everything; None if it was interrupted."""
        if not self._run("audit", 0):
            return None
        runs = self._sweep(sweep, at) if sweep or at else []
        if runs is None:
            return None
        audited = self._answered("audit", 0)
        steps = _judged(audited)
        threshold, reason = recommend(steps, runs, share)
        drafted = self._measured("audit", 0)
        return Report(
            f"{name}: {counted(len(self.tasks), 'question')}, {counted(len(steps), 'step')} of the draft",
            tuple(step.reward for answered in audited for step in answered.steps),
            tuple(step.earned for step in steps if step.earned is not None),
            tuple(curve(steps, self._costs())),
            tuple(runs),
            threshold,
            reason,
            len(self.left_out),
            drafted if drafted.answers else None,
        )

    def _costs(self) -> Costs:
        for role in self.loaded.models:
            self.loaded.engine(role)  # not every run needs every model
        parameters = {role: model.parameters for role, model in self.loaded.ids().items()}
        return Costs(parameters["draft"], parameters["target"], parameters.get("prm", 0))

    def _sweep(self, sweep: int, at: Sequence[float]) -> list[tuple[Measured, Gain | None]] | None:
        """Draft alone (the audited answers), thresholds `at` and at even shares of the target, target alone."""
        steps = _judged(self._answered("audit", 0))
        even = [threshold_for(steps, i / (sweep + 1)) for i in range(1, sweep + 1)]
        thresholds = sorted({*even, *at})
        wanted = [("target", 1.0), *(("rsd", threshold) for threshold in thresholds)]
        if not all(self._run(strategy, threshold) for strategy, threshold in wanted):
            return None
        first, last = self._measured("audit", 0), self._measured("target", 1)
        between = [self._measured("rsd", threshold) for threshold in thresholds]
        gains = [above_chord(measured, first, last, self.settings.seed) for measured in between]
        return [(first, None), *zip(between, gains, strict=True), (last, None)]

    def _measured(self, strategy: str, threshold: float) -> Measured:
        """The answers of a run whose gold ones are known and can be compared."""
        graded = [
            Graded(
                self.grader.is_right(answered.text, task.answer, answered.ended_by or "eog"),
                sum(step.tokens for step in answered.steps if step.author == "target"),
                sum(step.tokens for step in answered.steps),
            )
            for task, answered in zip(self.tasks, self._answered(strategy, threshold), strict=True)
            if task.gold is not None and self.grader.can_grade(task.gold)
        ]
        return Measured(threshold, tuple(graded))

    def _run(self, strategy: str, threshold: float) -> bool:
        """Answer what is missing; False if that was interrupted."""
        run = _name(strategy, threshold)
        missing = [task for task in self.tasks if self.answers.get(run, task.id) is None]
        settings = replace(self.settings, strategy=strategy, threshold=threshold)
        runner = Runner(self.loaded, settings, self.loaded.shape.n_seats)
        done = len(self.tasks) - len(missing)
        with counting(run, len(self.tasks), done, color=self.color) as tell:
            for happened in runner.run(Problem(task.id, task.question) for task in missing):
                if isinstance(happened, Failed):
                    self._leave_out(happened)
                    continue
                answered = finished(happened)
                if answered and answered.ended_by != "interrupted":
                    problem, steps = answered.trajectory.problem, tuple(answered.trajectory.steps)
                    name = digest(problem.question)
                    self.answers.add(Answered(run, problem.id, name, steps, answered.ended_by))
                    tell("")
        return not self.interrupt()

    def _leave_out(self, failed: Failed) -> None:
        """Do without a question that is too long; raises whatever else it failed with, or if none is left."""
        if not isinstance(failed.error, TooLongError | ContextOverflow):
            raise failed.error
        self.tasks = [task for task in self.tasks if task.id != failed.problem.id]
        self.left_out.append(failed.error)
        if not self.tasks:
            raise UsageError(
                f"All questions are too long: {self.left_out[0].message}",
                "Give shorter ones, or a trio with a longer context.",
            )

    def _answered(self, strategy: str, threshold: float) -> list[Answered]:
        """What a run has answered, of the questions that no run had to leave out."""
        answers = [self.answers.get(_name(strategy, threshold), task.id) for task in self.tasks]
        return [answered for answered in answers if answered is not None]


def _name(strategy: str, threshold: float) -> str:
    """What the answers of a run are recorded under."""
    return f"{strategy} {number_text(threshold)}"


def _judged(audited: Sequence[Answered]) -> list[JudgedStep]:
    return [
        JudgedStep(math.nan if step.reward is None else step.reward, step.tokens, step.audited, number)
        for number, answered in enumerate(audited)
        for step in answered.steps
    ]
