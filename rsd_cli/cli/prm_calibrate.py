"""`rsd prm calibrate`: finds a trio's threshold from questions, instead of letting the user guess it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsd_cli.cli import options
from rsd_cli.cli.questions import read_questions, with_formulas
from rsd_cli.errors import RSDError, UsageError

if TYPE_CHECKING:
    from rsd_cli.cli.questions import GoldQuestion


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
    from rsd_cli.cli.calibrating import Calibration
    from rsd_cli.cli.calibration_record import Answers, described
    from rsd_cli.cli.calibration_report import check_plot, draw, show
    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.cli.shape import Shape, parse_layers
    from rsd_cli.cli.trio import LoadedTrio
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
    shape = Shape(n_seats=seats, threads=threads, gpu_layers=parse_layers(gpu_layers))
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
