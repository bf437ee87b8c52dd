"""`rsd ask`: one question, answered step by step before the user's eyes."""

from __future__ import annotations

import hashlib
import io
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from rsd_cli.cli import options

if TYPE_CHECKING:
    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.decoding.events import Event
    from rsd_cli.decoding.trajectory import Problem, Settings
    from rsd_cli.display.ask import AskDisplay
    from rsd_cli.output import LineFile
    from rsd_cli.records import Record


@dataclass(frozen=True)
class Output:
    """Where the answer goes."""

    as_json: bool
    quiet: bool
    color: bool
    trace: LineFile | None

    @property
    def shows_steps(self) -> bool:
        """A person watches stderr and wants to see the steps."""
        return not self.quiet and sys.stderr.isatty()


@dataclass(frozen=True)
class Run:
    """One question with all that its record will tell. `started` is on `time.perf_counter`'s scale."""

    problem: Problem
    settings: Settings
    described: dict[str, Any]
    started: float


def ask(
    question: Annotated[str | None, typer.Argument(help="The question; - reads standard input.")] = None,
    trio: options.Trio = "starter",
    draft: options.Draft = None,
    target: options.Target = None,
    prm: options.Prm = None,
    strategy: options.Strategy = "rsd",
    threshold: options.Threshold = None,
    weighting: options.Weighting = "binary",
    target_share: options.TargetShare = None,
    share_per: options.SharePer = "run",
    beta: options.Beta = None,
    aggregate: options.Aggregate = "last",
    max_tokens: options.MaxTokens = 2048,
    max_steps: options.MaxSteps = 100,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    system: options.System = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as one JSON object.")] = False,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE", help="Append the record to a JSONL file.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but the answer.")] = False,
    no_color: options.NoColor = False,
    offline: options.Offline = False,
    no_verify: options.NoVerify = False,
    yes: options.Yes = False,
    models: options.ModelsFile = None,
    threads: options.Threads = 0,
    gpu_layers: options.GpuLayers = "",
    ctx: options.Ctx = 0,
    batch_size: options.BatchSize = 512,
    kv_type: options.KvType = "f16",
) -> None:
    """Answer one question.

    The draft writes each step, the PRM scores it, and the target rewrites what scores below the threshold.
    On a terminal the steps appear as they are written; in a pipe only the answer is printed.
    """
    started = time.perf_counter() - time.process_time()  # about when the process began
    from rsd_cli.cli import setup
    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.cli.method import Wishes, method_of
    from rsd_cli.cli.question import read_question
    from rsd_cli.decoding.trajectory import Problem, Settings
    from rsd_cli.output import LineFile

    text = read_question(question)
    wishes = Wishes(strategy, threshold, weighting, target_share, share_per, beta, aggregate)
    method = method_of(wishes)
    roles = method.strategy.roles
    output = Output(as_json, quiet, not no_color, LineFile(trace) if trace else None)
    access = setup.Access(models, offline, verify=not no_verify, yes=yes, quiet=quiet)
    layers = setup.parse_layers(gpu_layers)
    found = setup.find(setup.Choice(trio, draft, target, prm), access, roles)
    chosen = found.trio

    from rsd_cli.cli.trio import LoadedTrio, Shape
    from rsd_cli.decoding.prompts import MATHS

    settings = Settings(
        max_tokens=max_tokens,
        max_steps=max_steps,
        system=MATHS if system is None else system,
        seed=seed,
        sampling=setup.make_sampling(chosen.sampling, temperature=temperature),
    )
    settings = method.settle(settings, chosen.threshold)
    shape = Shape(ctx, 1, batch_size, threads, setup.check_kv_type(kv_type), layers)
    shape = setup.with_seats(chosen.models, shape, setup.seats_of_samples(method.strategy))
    described = {"trio": trio, "prm": chosen.prm.name, **asdict(shape)}
    run = Run(
        Problem(hashlib.blake2b(text.encode(), digest_size=6).hexdigest(), text),
        settings,
        described,
        started + found.download_seconds,
    )
    with Interrupt() as interrupt:
        loaded = LoadedTrio(chosen.models, chosen.prm if "prm" in roles else None, shape, interrupt)
        try:
            answers = _answer if method.strategy.samples == 1 else _sampled
            _deliver(answers(run, loaded, output), output)
        finally:
            loaded.close()
    if interrupt():
        raise typer.Exit(interrupt.exit_code)


def _answer(run: Run, loaded: LoadedTrio, output: Output) -> Record:
    """Run the question through the trio and show it."""
    from rsd_cli.cli.recording import recorded
    from rsd_cli.decoding.events import Ended, Streamed
    from rsd_cli.decoding.runner import Runner, finished

    with ExitStack() as stack:
        display = _display(stack, run, loaded, output)
        for happened in Runner(loaded, run.settings, loaded.shape.n_seats).run([run.problem]):
            done = finished(happened)
            if done:
                record = recorded(done, loaded, run.described, run.started)
            event = Ended(run.problem.id, record) if done else cast("Event", happened)
            if isinstance(event, Streamed):
                loaded.load_all()  # while the draft writes its first step
            if display:
                display.handle(event)
    return record


def _sampled(run: Run, loaded: LoadedTrio, output: Output) -> Record:
    """Answer the question several times and choose; the steps of the chosen answer are shown in the end."""
    from rsd_cli.cli.recording import recorded
    from rsd_cli.decoding.choosing import delivered
    from rsd_cli.decoding.events import Ended, Kept
    from rsd_cli.decoding.runner import Runner, finished
    from rsd_cli.decoding.strategies import parse

    loaded.load_all()
    branches = range(parse(run.settings.strategy).samples)
    records: dict[int, Record] = {}
    with ExitStack() as stack:
        display = _display(stack, run, loaded, output)
        runner = Runner(loaded, run.settings, loaded.shape.n_seats)
        for happened in runner.run([replace(run.problem, branch=branch) for branch in branches]):
            done = finished(happened)
            if done:
                branch = done.trajectory.problem.branch
                records[branch] = recorded(done, loaded, run.described, run.started)
        record = delivered([records[branch] for branch in sorted(records)])
        if display:
            for step in record.steps:
                display.handle(Kept(record.id, step))
            display.handle(Ended(record.id, record))
    return record


def _display(stack: ExitStack, run: Run, loaded: LoadedTrio, output: Output) -> AskDisplay | None:
    """The live display, where a person watches stderr."""
    if not output.shows_steps:
        return None
    from rsd_cli.display.ask import AskDisplay
    from rsd_cli.display.consoles import stderr_console

    names = {role: model.name for role, model in loaded.models.items()}
    if loaded.prm:
        names["prm"] = run.described["prm"]
    console = stderr_console(color=output.color)
    display = AskDisplay(console, run.problem.question, names, run.settings.strategy, time.perf_counter)
    loaded.on_loading = display.loading
    return stack.enter_context(display)


def _deliver(record: Record, output: Output) -> None:
    """The record to the trace, the answer to stdout; steps that got no reward are worth a word."""
    unjudged = sum(step.rejected is not None and step.rejected.reward is None for step in record.steps)
    if unjudged and not output.quiet:
        word = "steps" if unjudged > 1 else "step"
        typer.echo(f"The PRM gave no reward for {unjudged} {word}; the target wrote them.", err=True)
    if output.trace:
        output.trace.append(record.to_json())
        output.trace.close()
    if output.as_json:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # whatever the terminal speaks, JSON is UTF-8
        typer.echo(record.to_json())
    elif output.shows_steps and sys.stdout.isatty():
        from rsd_cli.display.answer import print_answer
        from rsd_cli.display.consoles import stdout_console

        print_answer(stdout_console(color=output.color), record)
    else:
        from rsd_cli.display.sanitise import visible

        text = record.answer.strip()
        typer.echo(visible(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
