"""A question of `rsd bench`: answered by the trio and by the target alone, against bare speeds and the prediction."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rsd_cli.cli.bench import Plan
    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.evaluation.speed import Speed
    from rsd_cli.evaluation.verdict import Verdict
    from rsd_cli.records import Record, Role

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)


@dataclass(frozen=True)
class Timed:
    """An answer and its seconds by the clock on the wall."""

    record: Record
    seconds: float


def measure_question(plan: Plan, speeds: dict[Role, list[Speed]]) -> dict[str, Any]:
    """One question by the whole trio against its parts at bare speeds, and what that says of RSD and of a batch."""
    from rsd_cli.cli.shape import Shape
    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.evaluation.speed import best_parallel, parts_seconds

    shape = Shape(ctx=1024, threads=plan.threads, gpu_layers=plan.layers)
    with closing(LoadedTrio(plan.cast.models, plan.cast.prm, shape, plan.aborted)) as loaded:
        loaded.load_all()
        before = _bare_speeds(plan, loaded)
        rsd = _answer(plan, loaded, "rsd")
        after = _bare_speeds(plan, loaded)
        alone = _answer(plan, loaded, "target")
    parts = (parts_seconds(rsd.record, before) + parts_seconds(rsd.record, after)) / 2
    typer.echo(
        f"one question: {rsd.seconds:.1f} s, its parts at bare speed {parts:.1f} s, ratio {rsd.seconds / parts:.2f}; "
        f"the target alone {alone.seconds:.1f} s"
    )
    best = best_parallel(rsd.record, speeds)
    if best:
        typer.echo(
            f"rsd batch: --parallel {best.seats} is best here, an estimated {best.gain:.1f} times as fast as 1"
        )
    return {
        "rsd_vs_parts": rsd.seconds / parts,
        "best_parallel": asdict(best) if best else None,
        "question": {
            "seconds": rsd.seconds,
            "target_seconds": alone.seconds,
            "parts_seconds": parts,
            "record": json.loads(rsd.record.to_json()),
        },
        "verdicts": _tell_verdicts(rsd, alone, speeds),
    }


def _tell_verdicts(rsd: Timed, alone: Timed, speeds: dict[Role, list[Speed]]) -> list[dict[str, Any]]:
    """For every number of seats that was measured; the question itself was answered in one."""
    from rsd_cli.display.steps import counted

    counts = [speed.seats for speed in next(iter(speeds.values()))]
    told = []
    for seats in counts:
        verdict = _verdict(rsd, alone, speeds, seats)
        if verdict:
            typer.echo(f"with {counted(seats, 'seat')}: {' '.join(verdict.sentences)}")
            told.append({"seats": seats, **verdict.to_json()})
    return told


def _verdict(rsd: Timed, alone: Timed, speeds: dict[Role, list[Speed]], seats: int) -> Verdict | None:
    from rsd_cli.evaluation.verdict import make_verdict, measured_tariff
    from rsd_cli.evaluation.workload import Workload, alone_of

    load = Workload()
    load.add(rsd.record)
    work = load.work(alone_of([alone.record]))
    if work is None:
        return None
    return make_verdict(
        work,
        load.parameters,
        measured_tariff(speeds, seats, work),
        measured_time=rsd.seconds / alone.seconds if seats == 1 else None,
        measured_compute=rsd.record.flops.total / alone.record.flops.total,
    )


def _bare_speeds(plan: Plan, loaded: LoadedTrio) -> dict[Role, Speed]:
    from rsd_cli.evaluation.speed import measure_speed

    effort = replace(plan.effort, rounds=2)
    return {role: measure_speed(loaded.engine(role), 1, effort) for role in loaded.models}


def _answer(plan: Plan, loaded: LoadedTrio, strategy: str) -> Timed:
    """Every engine reads the question anew; raises DecodeAborted where it is interrupted."""
    from rsd_cli.cli import setup
    from rsd_cli.cli.recording import recorded
    from rsd_cli.decoding.prompts import MATHS
    from rsd_cli.decoding.runner import Runner, finished
    from rsd_cli.decoding.trajectory import Problem, Settings
    from rsd_cli.engine.llama import DecodeAborted

    settings = Settings(
        strategy=strategy,
        threshold=plan.cast.threshold,
        max_tokens=96 if plan.quick else 400,
        system=MATHS,
        sampling=setup.make_sampling(plan.cast.sampling),
    )
    for role in loaded.models:
        loaded.engine(role).forget()
    started = time.perf_counter()
    events = list(Runner(loaded, settings).run([Problem("bench", QUESTION)]))
    seconds = time.perf_counter() - started
    done = next(done for event in events if (done := finished(event)))
    if done.ended_by == "interrupted":
        raise DecodeAborted
    return Timed(recorded(done, loaded, {}, started), seconds)
