"""`rsd eval`: strategies beside each other on benchmarks, with their accuracy, compute and time on this machine."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsd_cli.cli import options
from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from rsd_cli.evaluation.runs import Evaluation

DEFAULT = "rsd,target,draft"
COMPARE = "compare"
OF_COMPARE = ("tasks", "as_json", "no_color")


def evaluate(
    context: typer.Context,
    tasks: Annotated[
        list[str], typer.Argument(help="Benchmarks by name or YAML file; or: compare FOLDER FOLDER.")
    ],
    strategies: Annotated[
        str,
        typer.Option(
            "--strategies",
            metavar="NAME[@N][:AUTHOR][/KEY=VALUE...],...",
            help="What to set beside each other.",
        ),
    ] = DEFAULT,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Questions of each, from the top.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="The benchmark's rows as JSONL, not from the hub."),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Samples, results and report; goes on if there."
        ),
    ] = Path("rsd-eval"),
    trio: options.Trio = options.DEFAULT_TRIO,
    draft: options.Draft = None,
    target: options.Target = None,
    prm: options.Prm = None,
    max_tokens: options.MaxTokens = 2048,
    max_steps: options.MaxSteps = 100,
    seed: options.Seed = 0,
    parallel: Annotated[
        int,
        typer.Option("--parallel", "-p", min=0, max=256, help="Seats; 0 is as many as memory has room for."),
    ] = 0,
    project: Annotated[
        str,
        typer.Option(
            "--project-params", metavar="D,T,P", help="Compute for models of these sizes: 7e9,72e9,7e9."
        ),
    ] = "",
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Ask questions again that could not be answered.")
    ] = False,
    as_json: options.AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
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
    """Measure strategies on benchmarks.

    Each answers the same questions; accuracy, tokens, compute and time stand beside each other, with error bars and
    a verdict whether RSD pays on this machine. The same command goes on where it stopped. Tasks: gsm8k, math500,
    gaokao2023en, olympiadbench, gpqa, mmlu-stem, minerva, svamp, asdiv, aime24, amc23, or your own YAML file.
    """
    if tasks[0] == COMPARE:
        _check_compares(context)
        _compare(tasks[1:], as_json=as_json, color=not no_color)
        return
    if data and len(tasks) > 1:
        raise UsageError(
            "--data has the rows of one benchmark, and several are named.", "Name one, or use the hub."
        )
    from rsd_cli.cli import room, setup
    from rsd_cli.cli.eval_folder import revisions_of
    from rsd_cli.cli.eval_job import Job
    from rsd_cli.cli.eval_plan import contenders
    from rsd_cli.cli.shape import Shape, check_kv_type, parse_layers
    from rsd_cli.decoding.trajectory import Settings
    from rsd_cli.evaluation.costs import parse_parameters
    from rsd_cli.evaluation.grader import need_maths
    from rsd_cli.evaluation.taskdata import load
    from rsd_cli.evaluation.tasks import find_tasks

    field = contenders(strategies)
    sizes = parse_parameters(project) if project else {}
    found_tasks = find_tasks(tasks)
    for answer_type in {task.answer_type for task in found_tasks}:
        need_maths(answer_type)
    known = revisions_of(output)
    rows = {
        task.name: load(task, data, limit, offline=offline, revision=known.get(task.name))
        for task in found_tasks
    }
    roles = tuple(dict.fromkeys(role for each in field for role in each.method.strategy.roles))
    access = setup.Access(models, offline, verify=not no_verify, yes=yes, quiet=quiet, color=not no_color)
    found = setup.find_hashed(setup.Choice(trio, draft, target, prm), access, roles)
    shape = Shape(ctx, 1, batch_size, threads, check_kv_type(kv_type), parse_layers(gpu_layers))
    widest = max(each.method.strategy.width for each in field)  # needs all these seats of its own
    shape = room.with_seats(found.models, shape, _seats(widest, parallel), widest)
    base = Settings(
        max_tokens=max_tokens,
        max_steps=max_steps,
        seed=seed,
        sampling=setup.make_sampling(found.sampling),
    )
    job = Job(output, trio, field, rows, found, shape, base, limit, quiet, not no_color, retry_errors)
    evaluation = job.run(sizes)
    _show(evaluation, output, as_json=as_json, color=not no_color)
    _tell_failures(evaluation)


def _seats(widest: int, parallel: int) -> list[int]:
    """Numbers of seats, the best first."""
    from rsd_cli.cli.room import SEATS

    return [max(parallel, widest)] if parallel else [*(n for n in SEATS if n > widest), widest]


def _show(evaluation: Evaluation, folder: Path, *, as_json: bool, color: bool) -> None:
    from rsd_cli.display.consoles import stdout_console
    from rsd_cli.display.eval import show_evaluation

    if as_json:
        from rsd_cli.evaluation.results import results_of

        _print_json(results_of(evaluation))
    else:
        show_evaluation(stdout_console(color=color), evaluation)
    typer.echo(f"{folder / 'report.html'} has the pictures and every answer.", err=True)
    sys.stdout.flush()


def _tell_failures(evaluation: Evaluation) -> None:
    """What kept questions from being answered; leaves with 1 if anything did."""
    failed = [s for run in evaluation.tasks for each in run.strategies for s in each.samples if s.error]
    for message, n in Counter(sample.error for sample in failed).items():
        typer.echo(f"{n} without an answer: {message}", err=True)
    if failed:
        typer.echo("--retry-errors asks them again.", err=True)
        raise typer.Exit(1)


def _check_compares(context: typer.Context) -> None:
    """Refuse options that mean nothing between runs that are over."""
    sources = {each: context.get_parameter_source(each.name or "") for each in context.command.params}
    given = [each for each, source in sources.items() if source and source.name == "COMMANDLINE"]
    strange = [each.opts[0] for each in given if each.name not in OF_COMPARE]
    if strange:
        raise UsageError(
            f"rsd eval compare takes no {', '.join(strange)}.",
            "It has --json and --no-color; leave out the rest.",
        )


def _compare(folders: list[str], *, as_json: bool, color: bool) -> None:
    """Show how two evaluations differ."""
    from rsd_cli.display.consoles import stdout_console
    from rsd_cli.display.eval import show_comparison
    from rsd_cli.evaluation.comparing import compare
    from rsd_cli.evaluation.results import read_evaluation

    if len(folders) != 2:
        raise UsageError(f"compare takes two folders, not {len(folders)}.", "rsd eval compare FOLDER FOLDER")
    first, second = (read_evaluation(Path(folder)) for folder in folders)
    found = compare(first, second)
    if as_json:
        _print_json(asdict(found))
    else:
        show_comparison(stdout_console(color=color), found)


def _print_json(data: dict[str, Any]) -> None:
    import json

    from rsd_cli.cli.screen import echo_json

    echo_json(json.dumps(data, ensure_ascii=False, allow_nan=False))
