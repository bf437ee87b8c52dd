"""Whether memory has room for models, and for how many seats of them. An estimate; loads nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rsd_cli.cli.shape import ALL_LAYERS
from rsd_cli.engine.jobs import MAX_SEATS
from rsd_cli.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.cli.shape import Shape
    from rsd_cli.cli.warm import FoundModel
    from rsd_cli.decoding.strategies import Strategy
    from rsd_cli.records import Role

# Three times what a CPU decodes at once: a part of them waits for the other model, and the last rows end alone.
SEATS = (48, 32, 16, 8, 4, 2, 1)
SAMPLES_AT_ONCE = 16


def check_memory(models: dict[Role, FoundModel], shape: Shape, smaller: str = "--ctx") -> None:
    """Refuse before loading what can't fit; `smaller` are the command's options that save memory."""
    lack = _lack(models, shape)
    if lack:
        names = ", ".join(model.name for model in models.values())
        raise ResourceError(
            f"{names} need an estimated {lack.needed / 1e9:.1f} GB of {lack.kind}, "
            f"{lack.free / 1e9:.1f} GB are free.",
            f"Choose smaller models, a smaller {smaller}, or {lack.remedy}.",
        )


@dataclass(frozen=True)
class _Lack:
    """Bytes that are needed by estimate and those that are free, of which memory, and what would make room."""

    needed: int
    free: int
    remedy: str
    kind: str = "memory"


def _lack(models: dict[Role, FoundModel], shape: Shape) -> _Lack | None:
    """What can't fit; where there is plenty, nothing needs an estimate."""
    from rsd_cli.registry.memory import available_memory, needed_memory, plenty

    gpu = _gpu_memory(models, shape)
    if gpu is not None:
        return _lack_beside_gpus(models, shape, gpu)
    if plenty({model.path for model in models.values()}, shape.ctx, shape.n_held):
        return None
    paths = [model.path for model in models.values()]
    needed = needed_memory(paths, shape.ctx, shape.n_held, shape.kv_type)
    available = available_memory()
    return _lack_of_memory(needed, available) if available is not None and needed > available else None


def _lack_of_memory(needed: int, free: int) -> _Lack:
    from rsd_cli.registry.memory import address_room

    is_limited = address_room(needed) < needed
    return _Lack(needed, free, "raise the limit (`ulimit -v`)" if is_limited else "close other programs")


def _gpu_memory(models: dict[Role, FoundModel], shape: Shape) -> int | None:
    """Free bytes of the GPUs that layers go to; None where none do."""
    from rsd_cli.engine.llama import can_offload, devices
    from rsd_cli.registry.memory import gpu_memory

    if not can_offload() or all(shape.gpu_layers.get(role, ALL_LAYERS) == 0 for role in models):
        return None
    return gpu_memory(devices())


def _lack_beside_gpus(models: dict[Role, FoundModel], shape: Shape, gpu: int) -> _Lack | None:
    """What can't fit, of layers on GPUs and of the others.

    A system that does not tell what is free refuses nothing: on a Mac both are the same memory.
    """
    from rsd_cli.registry.memory import available_memory, needed_by_place

    available = available_memory()
    if available is None:
        return None
    roles = [(model.path, shape.gpu_layers.get(role, ALL_LAYERS)) for role, model in models.items()]
    needed = needed_by_place(roles, shape.ctx, shape.n_held, shape.kv_type)
    if needed.gpu > gpu:
        return _Lack(needed.gpu, gpu, "leave layers to the CPU with --gpu-layers", "GPU memory")
    return _lack_of_memory(needed.host, available) if needed.host > available else None


def with_seats(models: dict[Role, FoundModel], shape: Shape, wanted: Sequence[int], least: int) -> Shape:
    """The shape with the first of these numbers of seats that memory has room for; refuses if it has for none.

    Where none of them is as few as the `least` that the strategy needs, --parallel asked for more.
    """
    shapes = [replace(shape, n_seats=n_seats) for n_seats in wanted]
    fitting = next((each for each in shapes if not _lack(models, each)), shapes[-1])
    check_memory(models, fitting, "--ctx or --parallel" if min(wanted) > least else "--ctx")
    return fitting


def seats_of(strategy: Strategy, in_flight: int) -> list[int]:
    """Numbers of seats, the best first: for so many answers in flight, or (0) for what memory has room for."""
    width = strategy.width
    if in_flight * width > MAX_SEATS:
        raise UsageError(
            f"{in_flight} answers of --strategy {strategy} need {in_flight * width} seats, possible are {MAX_SEATS}.",
            f"Use --parallel {MAX_SEATS // width} or less.",
        )
    return [in_flight * width] if in_flight else [*(n for n in SEATS if n > width), width]


def seats_of_samples(strategy: Strategy) -> list[int]:
    """The same for one question: its samples at once, as far as a CPU decodes them together."""
    most = min(strategy.samples, SAMPLES_AT_ONCE) * strategy.width
    return [*(n for n in (most, *SEATS) if strategy.width < n <= most), strategy.width]
