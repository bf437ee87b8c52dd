"""`rsd prm calibrate`: finds a trio's threshold from questions, instead of letting the user guess it."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsd_cli.cli import options
from rsd_cli.cli.questions import GoldQuestion, read_questions, with_formulas
from rsd_cli.errors import RSDError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.cli.calibration_record import Answered, Answers
    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.decoding.runner import Failed
    from rsd_cli.decoding.trajectory import Settings
    from rsd_cli.display.calibration import Report
    from rsd_cli.evaluation.calibration import Costs, Gain, JudgedStep, Measured
    from rsd_cli.evaluation.grader import Grader


def calibrate(
    questions: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSONL with question, and answer where it is known.")
    ],
    trio: options.Trio = options.DEFAULT_TRIO,
    draft: options.Draft = None,
    target: options.Target = None,
    prm: options.Prm = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Questions to use, from the top.")] = 50,
    share: Annotated[
        float | None,
        typer.Option("--target-share", min=0, max=1, help="Wanted share of tokens by the target."),
    ] = None,
    sweep: Annotated[
        int,
        typer.Option(
            "--sweep", min=0, max=20, help="Thresholds to run besides draft and target alone; needs answers."
        ),
    ] = 0,
    at: Annotated[
        str, typer.Option("--at", metavar="X,...", help="Thresholds to run as well; needs answers.")
    ] = "",
    record: Annotated[
        Path | None,
        typer.Option("--record", metavar="FILE", help="Keep every answer here; continued if there."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="The report as a picture, .png or .svg.")
    ] = None,
    save: Annotated[
        bool,
        typer.Option("--save", help="Write the threshold to the trio, in the models.yaml that declares it."),
    ] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", min=1, help="Longest answer.")] = 512,
    seats: Annotated[int, typer.Option("--seats", min=1, max=256, help="Answers side by side.")] = 32,
    seed: Annotated[int, typer.Option("--seed", help="Seed of sampling and of the intervals.")] = 0,
    as_json: options.AsJson = False,
    no_color: options.NoColor = False,
    models: options.ModelsFile = None,
    offline: options.Offline = False,
    yes: options.Yes = False,
    threads: options.Threads = 0,
    gpu_layers: options.GpuLayers = "",
) -> None:
    """Find a threshold for a trio.

    The draft answers every question and the PRM scores each step; at every fourth step the target writes one
    too, to see what it would have earned. The draft's answers are graded where the right ones are known; with
    --sweep or --at those at several thresholds as well.
    """
    from rsd_cli.cli import room, setup
    from rsd_cli.cli.calibration_record import Answers, described
    from rsd_cli.cli.calibration_report import check_plot, draw, show
    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.cli.trio import LoadedTrio, Shape
    from rsd_cli.decoding.prompts import MATHS
    from rsd_cli.decoding.strategies import parse
    from rsd_cli.decoding.trajectory import Settings
    from rsd_cli.engine.llama import DecodeAborted
    from rsd_cli.evaluation.grader import Grader
    from rsd_cli.registry.editing import check_savable, set_threshold
    from rsd_cli.registry.loading import load_registry

    asked = _thresholds(at)
    if plot:
        check_plot(plot)
    tasks = read_questions(questions, rows, need_gold=bool(sweep or asked))
    _check_gradable(tasks, need=bool(sweep or asked))
    entry = load_registry(models).trio(trio)
    if save and (draft or target or prm):
        raise UsageError("--save goes with a trio as it is.", "Leave out --draft, --target and --prm.")
    if save:
        check_savable(entry, models)
    access = setup.Access(models, offline, yes=yes, color=not no_color)
    cast = setup.find_hashed(setup.Choice(trio, draft, target, prm), access, parse("audit").roles)
    shape = Shape(n_seats=seats, threads=threads, gpu_layers=setup.parse_layers(gpu_layers))
    room.check_memory(cast.models, shape, "--seats")
    sampling = setup.make_sampling(cast.sampling)
    settings = Settings("audit", max_tokens=max_tokens, system=MATHS, seed=seed, sampling=sampling)
    answers = Answers(record, described(trio, cast, settings), tasks)
    report = None
    with Interrupt() as interrupt, Grader() as grader, suppress(DecodeAborted):
        loaded = LoadedTrio(cast.models, cast.prm, shape, interrupt)
        try:
            calibration = Calibration(loaded, tasks, settings, answers, grader, interrupt, not no_color)
            report = calibration.report(trio, share, sweep, asked)
        finally:
            loaded.close()
            answers.close()
    if report is None:
        raise typer.Exit(interrupt.exit_code)
    show(report, as_json=as_json, color=not no_color)
    if save:
        path = set_threshold(entry, report.threshold, _told(questions, len(calibration.tasks)), models)
        typer.echo(f"written to {path}", err=True)
    if plot:
        draw(plot, report)


def _told(questions: Path, n: int) -> str:
    """On what a threshold was calibrated, for who finds it in the file."""
    from rsd_cli.display.steps import counted

    name = questions.name.encode("utf-8", "replace").decode()
    return f"{name}, {counted(n, 'question')}, {time.strftime('%Y-%m-%d')}"


def _check_gradable(tasks: list[GoldQuestion], *, need: bool) -> None:
    """Refuse formulas that can't be compared; where no answer needs to be graded, say only that these are not."""
    from rsd_cli.evaluation.grader import need_maths

    if with_formulas(tasks):
        try:
            need_maths("maths")
        except RSDError as error:
            if need:
                raise
            typer.echo(f"Not all answers are graded. {error.message} {error.hint}", err=True)


def _thresholds(text: str) -> list[float]:
    try:
        thresholds = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        thresholds = [-1.0]
    if not all(0 <= threshold <= 1 for threshold in thresholds):
        raise UsageError(f"--at {text!r} is no list of thresholds from 0 to 1.", "For example: --at 0.3,0.5")
    return thresholds


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
        from rsd_cli.display.calibration import Report
        from rsd_cli.evaluation.calibration import curve, recommend

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
            f"{name}: {len(self.tasks)} questions, {len(steps)} steps of the draft",
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
        from rsd_cli.evaluation.calibration import Costs

        for role in self.loaded.models:
            self.loaded.engine(role)  # not every run needs every model
        parameters = {role: model.parameters for role, model in self.loaded.ids().items()}
        return Costs(parameters["draft"], parameters["target"], parameters.get("prm", 0))

    def _sweep(self, sweep: int, at: Sequence[float]) -> list[tuple[Measured, Gain | None]] | None:
        """Draft alone (the audited answers), thresholds `at` and at even shares of the target, target alone."""
        from rsd_cli.evaluation.calibration import above_chord, threshold_for

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
        from rsd_cli.evaluation.calibration import Graded, Measured

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
        from rsd_cli.cli.calibration_record import Answered, digest
        from rsd_cli.decoding.runner import Failed, Runner, finished
        from rsd_cli.decoding.trajectory import Problem
        from rsd_cli.display.counting import counting

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
        from rsd_cli.decoding.participants import TooLongError
        from rsd_cli.engine.jobs import ContextOverflow

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
    from rsd_cli.registry.names import number_text

    return f"{strategy} {number_text(threshold)}"


def _judged(audited: Sequence[Answered]) -> list[JudgedStep]:
    from rsd_cli.evaluation.calibration import JudgedStep

    return [
        JudgedStep(math.nan if step.reward is None else step.reward, step.tokens, step.audited, number)
        for number, answered in enumerate(audited)
        for step in answered.steps
    ]
