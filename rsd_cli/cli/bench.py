"""`rsd bench`: is this machine, and this program, as fast as llama.cpp can be?"""

from __future__ import annotations

import json
import sys
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsd_cli.cli import options
from rsd_cli.cli.bench_question import QUESTION, measure_question
from rsd_cli.errors import RSDError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rsd_cli.cli.warm import FoundModel, FoundTrio
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.seats import Engine
    from rsd_cli.evaluation.speed import Effort, Speed
    from rsd_cli.records import Role


def bench(
    trio: options.Trio = options.DEFAULT_TRIO,
    draft: options.Draft = None,
    target: options.Target = None,
    prm: options.Prm = None,
    quick: Annotated[bool, typer.Option("--quick", help="About a minute: one seat, few rounds.")] = False,
    roles: Annotated[
        str, typer.Option("--roles", help="Measure only these models: draft,target,prm.")
    ] = "draft,target,prm",
    seats: Annotated[str, typer.Option("--seats", help="Numbers of seats, separated by commas.")] = "",
    models: options.ModelsFile = None,
    offline: options.Offline = False,
    yes: options.Yes = False,
    threads: options.Threads = 0,
    gpu_layers: options.GpuLayers = "",
) -> None:
    """Measure speed as ratios within one run.

    Every model through rsd's engine and through a bare llama_decode loop, one question answered by the trio
    and by the target alone, whether RSD pays here, and what starting costs. The last line of stdout is one JSON
    object.
    """
    from rsd_cli.cli import setup
    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.cli.shape import parse_layers
    from rsd_cli.engine.llama import DecodeAborted
    from rsd_cli.evaluation.speed import Effort
    from rsd_cli.records import ROLES  # its dataclasses take a tenth of what help costs

    chosen = _chosen_roles(roles)
    counts = _seat_counts(seats or ("1" if quick else "1,4,16"))
    effort = (
        Effort(rounds=4, prompt_tokens=128, write_tokens=24)
        if quick
        else Effort(rounds=10, prompt_tokens=256, write_tokens=24)
    )
    access = setup.Access(models, offline, yes=yes)
    layers = parse_layers(gpu_layers)
    cast = setup.find(setup.Choice(trio, draft, target, prm), access, ROLES).trio
    files = cast.models

    result: dict[str, Any] = {"trio": trio, "prm": cast.prm.name, "quick": quick, "rsd_vs_parts": None}
    with Interrupt() as interrupt, suppress(DecodeAborted):
        plan = Plan(cast, effort, threads, layers, quick, interrupt)
        measured = _measure_models(plan, {role: files[role] for role in chosen if role in files}, counts)
        result |= {key: value for key, value in measured.items() if key != "by_role"}
        if set(files) <= set(chosen):
            result |= measure_question(plan, measured["by_role"])
        prompt = _draft_prompt(plan)
    if interrupt():
        raise typer.Exit(interrupt.exit_code)
    names = {"--trio": trio, "--draft": draft, "--target": target, "--prm": prm, "--models": models}
    given = [(flag, str(name)) for flag, name in names.items() if name]
    result |= _measure_start(plan, prompt, [word for pair in given for word in pair])
    typer.echo(json.dumps(result))


@dataclass(frozen=True)
class Plan:
    """What is measured, how thoroughly, and whether it is to end."""

    cast: FoundTrio
    effort: Effort
    threads: int
    layers: dict[Role, int]
    quick: bool
    aborted: Callable[[], bool]


def _chosen_roles(text: str) -> list[Role]:
    from rsd_cli.records import ROLES

    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in ROLES:
            raise UsageError(f"--roles names {name!r}.", f"The roles are {', '.join(ROLES)}.")
    return [role for role in ROLES if role in names]


def _seat_counts(text: str) -> list[int]:
    """The numbers from small to large, each once: speeds between them are told by their neighbours."""
    try:
        counts = [int(count) for count in text.split(",")]
    except ValueError:
        counts = [0]
    if not all(1 <= count <= 256 for count in counts):
        raise UsageError(
            f"--seats {text!r} is no list of numbers from 1 to 256.", "For example: --seats 1,4,16"
        )
    return sorted(set(counts))


def _measure_models(plan: Plan, chosen: dict[Role, FoundModel], counts: list[int]) -> dict[str, Any]:
    """Each model through the engine and through the bare loop; the first also against the high-level class."""
    from rsd_cli.engine.llama import Model

    figures: dict[str, Any] = {"speeds": {}, "by_role": {}}
    for path, roles in _by_file(chosen).items():
        layers = plan.layers.get(roles[0], -1)
        name = "+".join(roles)
        with closing(Model(path, layers, plan.aborted)) as model:
            speeds = [_measure_speed(plan, model, name, n) for n in counts]
            figures["speeds"][name] = [asdict(speed) for speed in speeds]
            figures["by_role"] |= dict.fromkeys(roles, speeds)
            if "decode_vs_high_level" not in figures:
                figures |= _measure_first_model(plan, model, layers)
    ratios = [speed["decode_vs_bare"] for speeds in figures["speeds"].values() for speed in speeds[:1]]
    figures["decode_vs_bare"] = min(ratios, default=None)
    return figures


def _by_file(chosen: dict[Role, FoundModel]) -> dict[Path, list[Role]]:
    """Roles that share a file are measured once."""
    files: dict[Path, list[Role]] = {}
    for role, model in chosen.items():
        files.setdefault(model.path, []).append(role)
    return files


def _measure_speed(plan: Plan, model: Model, name: str, n_seats: int) -> Speed:
    from rsd_cli.evaluation.speed import measure_speed

    effort = plan.effort if n_seats == 1 else replace(plan.effort, rounds=2)
    with _engine(plan, model, n_seats) as engine:
        speed = measure_speed(engine, n_seats, effort)
    typer.echo(
        f"{name:12} {n_seats:3} seats   prompt {speed.prompt:7.1f} tokens/s (bare {speed.bare_prompt:7.1f})   "
        f"decode {speed.decode:6.1f} (bare {speed.bare_decode:6.1f}, ratio {speed.decode_vs_bare:.2f})"
    )
    return speed


@contextmanager
def _engine(plan: Plan, model: Model, n_seats: int) -> Iterator[Engine]:
    from rsd_cli.engine.context import ContextOptions
    from rsd_cli.engine.seats import Engine

    # Every seat reads the same, and shall read it itself.
    options = ContextOptions(n_ctx=512, n_seats=n_seats, threads=plan.threads, forgets=True)
    with closing(Engine(model, options, plan.aborted)) as engine:
        yield engine


def _measure_first_model(plan: Plan, model: Model, layers: int) -> dict[str, Any]:
    """Against the high-level class, and beside busy processes."""
    from rsd_cli.evaluation.speed import against_high_level, beside_neighbours

    with _engine(plan, model, 1) as engine:
        high = against_high_level(engine, plan.effort, plan.threads, layers)
        typer.echo(
            f"decode against the high-level class: {high.ours:.1f} / {high.other:.1f} = {high.ratio:.2f}"
        )
        figures: dict[str, Any] = {"decode_vs_high_level": high.ratio, "high_level": asdict(high)}
        if not plan.quick:
            beside = beside_neighbours(engine, plan.effort)
            typer.echo(
                f"decode beside one busy process: {beside.beside_one:.2f} of undisturbed, "
                f"beside one per core: {beside.beside_one_per_core:.2f}"
            )
            figures["neighbours"] = asdict(beside)
    return figures


def _measure_start(plan: Plan, ids: list[int], trio: list[str]) -> dict[str, Any]:
    """What `rsd --help` costs, and how soon a warm `rsd ask` shows its first token against the bare minimum.

    `ids` are the question's for the draft. All of it runs in processes of its own, so Ctrl-C ends it as usual.
    """
    import statistics

    from rsd_cli.evaluation.speed import help_cpu_ms

    help_ms = help_cpu_ms(3 if plan.quick else 7)
    prompt = ",".join(str(token) for token in ids)
    pairs = [_first_token(plan, prompt, trio) for _ in range(2 if plan.quick else 4)][
        1:
    ]  # the first one warms the cache
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    typer.echo(f"rsd --help: {help_ms:.0f} ms of CPU beyond bare Python")
    typer.echo(
        f"first token: {pairs[-1][0]:.2f} s, bare load and prompt {pairs[-1][1]:.2f} s, ratio {ratio:.2f}"
    )
    first = [{"ours_seconds": ours, "bare_seconds": bare} for ours, bare in pairs]
    return {"cpu_help_ms": help_ms, "first_token_vs_bare": ratio, "first_token": first}


def _first_token(plan: Plan, prompt: str, trio: list[str]) -> tuple[float, float]:
    """Seconds to the first token of `rsd ask`, and of a bare load and prompt, each in a fresh process."""
    floor = [
        sys.executable,
        "-m",
        "rsd_cli.engine.floor",
        str(plan.cast.models["draft"].path),
        "4096",
        prompt,
    ]
    bare = float(output_of(floor))
    ask = [
        sys.executable,
        "-m",
        "rsd_cli",
        "ask",
        QUESTION,
        "--max-tokens",
        "8",
        "--json",
        "--offline",
        "--no-log",
        *trio,
    ]
    record = json.loads(output_of(ask))
    return record["timings"]["first_token_ms"] / 1000, bare


def _draft_prompt(plan: Plan) -> list[int]:
    from rsd_cli.cli.shape import Shape
    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.decoding.prompts import MATHS

    models: dict[Role, FoundModel] = {"draft": plan.cast.models["draft"]}
    with closing(LoadedTrio(models, None, Shape(ctx=1024), plan.aborted)) as loaded:
        return loaded.prompt("draft", MATHS, QUESTION)


def output_of(command: list[str]) -> str:
    """What a Python module writes to stdout; if it fails, an error with its last words."""
    import subprocess

    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _failure(command[2], done.stderr.strip() or f"exit code {done.returncode}")
    return done.stdout


def _failure(module: str, said: str) -> RSDError:
    words, _, hint = said.partition("\nhint: ")
    reason = words.splitlines()[-1].removeprefix("error: ")
    return RSDError(f"{module}, which rsd bench started, failed: {reason}", hint)
