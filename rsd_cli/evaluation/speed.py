"""How fast the engine is, as ratios within one run. Times and divides; shows nothing.

Absolute speeds drift on shared machines, so what is compared is measured in turns, and the middle of the
pairwise ratios counts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from rsd_cli.engine.cores import usable_cores
from rsd_cli.engine.floor import Floor, HighLevel
from rsd_cli.engine.jobs import Sampled, Write, whole
from rsd_cli.engine.sampling import Sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rsd_cli.engine.seats import Engine
    from rsd_cli.records import Record, Role

Measured = TypeVar("Measured")
COUNTING = "Let me count: " + ", ".join(str(n) for n in range(1, 400))  # models go on with it for ever
NEVER = "\x00"  # a separator that no step has


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int
    prompt_tokens: int
    write_tokens: int


@dataclass(frozen=True)
class Speed:
    """Tokens per second of one model at a number of seats: the engine's, and the floor's in the same minutes."""

    seats: int
    prompt: float
    decode: float
    bare_prompt: float
    bare_decode: float
    decode_vs_bare: float


def measure_speed(engine: Engine, n_seats: int, effort: Effort) -> Speed:
    """Engine and floor in turns, `effort.rounds` times."""
    prompt = engine.model.tokenize(COUNTING)[: max(8, effort.prompt_tokens // n_seats)]
    engine.forget()  # the floor knows nothing of seats
    with closing(Floor(engine)) as floor:
        ours, bare = _in_turns(
            effort.rounds,
            lambda: engine_rates(engine, prompt, n_seats, effort.write_tokens),
            lambda: _floor_rates(floor, prompt, n_seats, effort.write_tokens),
        )
    return Speed(
        seats=n_seats,
        prompt=statistics.median(rates.prompt for rates in ours),
        decode=statistics.median(rates.decode for rates in ours),
        bare_prompt=statistics.median(rates.prompt for rates in bare),
        bare_decode=statistics.median(rates.decode for rates in bare),
        decode_vs_bare=statistics.median(
            mine.decode / floor.decode for mine, floor in zip(ours, bare, strict=True)
        ),
    )


def _in_turns(
    rounds: int, ours: Callable[[], Measured], other: Callable[[], Measured]
) -> tuple[list[Measured], list[Measured]]:
    """Both measured in every round, each first in every other one, since the first of two may fare better."""
    mine, its = [], []
    for i in range(rounds):
        if i % 2:
            mine.append(ours())
        its.append(other())
        if not i % 2:
            mine.append(ours())
    return mine, its


@dataclass(frozen=True)
class Rates:
    """Tokens per second over all seats."""

    prompt: float
    decode: float


def _floor_rates(floor: Floor, prompt: list[int], n_seats: int, n_tokens: int) -> Rates:
    read = floor.read(prompt, n_seats)
    write = floor.write(n_tokens, n_seats, len(prompt))
    floor.clear(n_seats)
    return Rates(len(prompt) * n_seats / read, n_tokens * n_seats / write)


def engine_rates(engine: Engine, prompt: list[int], n_seats: int, n_tokens: int) -> Rates:
    """The same work as jobs of the engine."""
    job = Write(prompt, Sampling(), 0, NEVER, n_tokens + 1)
    started = time.perf_counter()
    for seat in range(n_seats):
        engine.submit(seat, job)
    first, drawn = started, 0
    while engine.busy:
        drawn += sum(isinstance(update, Sampled) for update in whole(engine.step()))
        if drawn <= n_seats:
            first = time.perf_counter()
    done = time.perf_counter()
    for seat in range(n_seats):
        engine.release(seat)
    engine.forget()
    return Rates(len(prompt) * n_seats / (first - started), (drawn - n_seats) / (done - first))


@dataclass(frozen=True)
class Comparison:
    """Our figure and another's from the same minutes; `ratio` is the middle of the pairwise ratios."""

    ours: float
    other: float
    ratio: float


def against_high_level(engine: Engine, effort: Effort, threads: int, gpu_layers: int) -> Comparison:
    """Decode speed of one seat against llama-cpp-python's streaming completion of the same prompt.

    `threads` (0: one per usable core) and `gpu_layers` are those that the engine has.
    """
    prompt = engine.model.tokenize(COUNTING)[:64]
    with closing(HighLevel(engine.model.path, engine.n_ctx, threads or usable_cores(), gpu_layers)) as high:
        ours, other = _in_turns(
            effort.rounds,
            lambda: engine_rates(engine, prompt, 1, effort.write_tokens).decode,
            lambda: high.write(prompt, effort.write_tokens + 1, engine.context.aborted),
        )
    ratios = [mine / its for mine, its in zip(ours, other, strict=True)]
    return Comparison(statistics.median(ours), statistics.median(other), statistics.median(ratios))


@dataclass(frozen=True)
class Neighbours:
    """Decode speed beside busy processes, as a share of the undisturbed one."""

    undisturbed: float
    beside_one: float
    beside_one_per_core: float


def beside_neighbours(engine: Engine, effort: Effort) -> Neighbours:
    """One seat decodes alone, beside one busy process, beside one per core, and alone again."""
    prompt = engine.model.tokenize(COUNTING)[:16]

    def rate() -> float:
        return engine_rates(engine, prompt, 1, effort.write_tokens).decode

    before = rate()
    with busy_processes(1):
        one = rate()
    with busy_processes(usable_cores()):
        every = rate()
    alone = (before + rate()) / 2
    return Neighbours(alone, one / alone, every / alone)


@contextmanager
def busy_processes(n: int) -> Iterator[None]:
    """`n` processes that compute all the time."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [
        subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(n)
    ]  # Ctrl-C reaches them, too
    try:
        time.sleep(0.3)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def parts_seconds(record: Record, speeds: dict[Role, Speed]) -> float:
    """How long a record's tokens take at bare speeds: fed at the prompt's, generated at the decode's."""
    return sum(
        usage.fed / speeds[role].bare_prompt + usage.generated / speeds[role].bare_decode
        for role, usage in record.usage.items()
        if usage.decoded
    )


@dataclass(frozen=True)
class Parallel:
    """How many seats a batch is best given here, and how much faster than one seat it is then, both estimated."""

    seats: int
    gain: float


def best_parallel(record: Record, speeds: dict[Role, list[Speed]]) -> Parallel | None:
    """From one answer's tokens and the speeds at several numbers of rows; None where only one number was measured.

    Twice as many seats as rows, where two models write: half of the seats wait for the other model.
    """
    counts = [speed.seats for speed in next(iter(speeds.values()), [])]
    if len(counts) < 2 or 1 not in counts:
        return None
    seconds = {
        n: parts_seconds(record, {role: each[i] for role, each in speeds.items()})
        for i, n in enumerate(counts)
    }
    best = min(seconds, key=lambda n: seconds[n])
    writers = sum(record.usage[role].generated > 0 for role in ("draft", "target") if role in record.usage)
    return Parallel(best * max(1, writers), seconds[1] / seconds[best])


def help_cpu_ms(runs: int) -> float:
    """CPU milliseconds of `rsd --help` beyond those of a bare Python; the middle of several runs."""
    helps = [_cpu_seconds([sys.executable, "-m", "rsd_cli", "--help"]) for _ in range(runs)]
    bares = [_cpu_seconds([sys.executable, "-c", "pass"]) for _ in range(runs)]
    return (statistics.median(helps) - statistics.median(bares)) * 1000


def _cpu_seconds(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
