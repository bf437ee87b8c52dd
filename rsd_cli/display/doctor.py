"""What `rsd doctor` prints: sections of names and values that survive being copied. Finds out nothing."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from rsd_cli.display.sanitise import visible
from rsd_cli.display.steps import counted
from rsd_cli.registry.memory import DEFAULT_CTX
from rsd_cli.registry.names import size_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from rsd_cli.engine.llama import Device
    from rsd_cli.registry.environment import Build, Place, Places, Report, Setting
    from rsd_cli.registry.fitness import MemoryFit, TrioFacts, Verdict, Vocabularies

GOOD, BAD, OPEN = "green", "red", "yellow"
VERDICT_STYLES = {"yes": GOOD, "no": BAD, "unknown": OPEN}
FILE_STYLES = {"present": GOOD, "unusable": BAD, "missing": OPEN}
WITHOUT_AMX = "left out, as its kernels fail here; a build by another compiler than GCC 12 may be faster"
INDENT = 2
TIE = "\xa0"


@dataclass(frozen=True)
class Field:
    """A name and its value, whose first word says it all and may have a colour."""

    name: str
    value: str
    style: str = ""


def show_report(console: Console, report: Report) -> None:
    """Print every section, one below the other."""
    for number, (title, fields) in enumerate(_sections(report)):
        if number:
            console.print()
        console.print(Text(visible(title), style="bold"))
        column = INDENT + max(len(field.name) for field in fields) + 2
        for field in fields:
            for line in _lines(field, column, console.width):
                console.print(line, soft_wrap=True)


def _lines(field: Field, column: int, width: int) -> list[Text]:
    """The value wrapped in its column. What is longer, such as a path, stays whole on a line of its own."""
    name, value = visible(field.name), visible(field.value)
    wrapped = _wrap(value, width - column)
    if max(map(len, wrapped)) > width - column:
        wrapped = _wrap(value, width - 2 * INDENT)
        below = [Text(" " * 2 * INDENT + line) for line in wrapped]
        return [Text(" " * INDENT + name), *below]
    first = Text(f"{' ' * INDENT}{name}".ljust(column))
    word, space, others = wrapped[0].partition(" ")
    first.append(word, field.style).append(space + others)
    return [first, *(Text(" " * column + line) for line in wrapped[1:])]


def _wrap(value: str, room: int) -> list[str]:
    """Lines of at most `room` characters where words allow; numbers with units and commands stay whole."""
    tied = re.sub(r"`[^`]*`|\d [kMGT]?B\b", lambda match: match.group().replace(" ", TIE), value)
    lines = textwrap.wrap(tied, max(room, 10), break_long_words=False, break_on_hyphens=False)
    return [line.replace(TIE, " ") for line in lines] or [""]


def _sections(report: Report) -> Iterator[tuple[str, list[Field]]]:
    yield "versions", _versions(report)
    yield "llama.cpp", _engine(report)
    yield "devices", [Field(device.name, _device(device)) for device in report.devices] or _no_devices()
    yield "CPU", _cpu(report)
    yield "OpenMP", _threading(report)
    yield "environment", _environment(report)
    yield "places", _places(report.places)
    if report.models_problem:
        problem = report.models_problem
        yield "trios", [Field("files", f"unusable: {problem.reason}", BAD), Field("hint", problem.hint)]
    for trio in report.trios:
        yield f"trio {trio.name}", list(_trio(trio))


def _versions(report: Report) -> list[Field]:
    names = {"llama_cpp_python": "llama-cpp-python", "llama_cpp": "llama.cpp", "python": "Python"}
    return [Field(names.get(key, key), version) for key, version in report.versions.items()]


def _engine(report: Report) -> list[Field]:
    if report.engine_problem:
        problem = report.engine_problem
        return [
            Field("state", f"broken, it cannot be loaded: {problem.reason}", BAD),
            Field("hint", problem.hint),
        ]
    return _build(report.build) if report.build else []


def _build(build: Build) -> list[Field]:
    flags = [Field(f"{backend} flags".strip(), " ".join(has)) for backend, has in build.features.items()]
    return [
        *flags,
        *([] if build.amx_works else [Field("AMX", WITHOUT_AMX, OPEN)]),
        Field("GPU offload", _yes(build.gpu_offload)),
        Field("BLAS", _yes(build.blas)),
        Field("OpenMP", _yes(build.openmp)),
    ]


def _yes(fact: bool) -> str:  # noqa: FBT001
    return "yes" if fact else "no"


def _no_devices() -> list[Field]:
    return [Field("unknown", "since llama.cpp cannot be asked")]


def _device(device: Device) -> str:
    if not device.total:
        return f"{device.description}, no memory of its own"
    free = "unknown" if device.free is None else size_text(device.free)
    return f"{device.description}, {free} free of {size_text(device.total)}"


def _cpu(report: Report) -> list[Field]:
    cpu = report.cpu
    return [
        Field("processor", cpu.description),
        Field(
            "usable", f"{counted(cpu.usable_cores, 'core')}, {counted(cpu.usable_threads, 'hardware thread')}"
        ),
        Field("rsd takes", f"{counted(cpu.usable_cores, 'thread')} unless --threads says otherwise"),
    ]


def _threading(report: Report) -> list[Field]:
    fields = [Field(setting.name, _setting(setting)) for setting in report.openmp]
    if report.build and not report.build.openmp:
        return [*fields, Field("used", "no, this llama.cpp is built without OpenMP")]
    return fields


def _setting(setting: Setting) -> str:
    if setting.value is None:
        return "not set"
    return f"{setting.value or 'empty'} ({'your setting' if setting.origin == 'user' else 'set by rsd'})"


def _environment(report: Report) -> list[Field]:
    fields = [Field(name, value) for name, value in report.environment.items()]
    return fields or [Field("nothing", "that matters to rsd is set")]


def _places(places: Places) -> list[Field]:
    free = places.store_free_bytes
    return [
        Field("model store", _place(places.store)),
        Field("disk", "unknown" if free is None else f"{size_text(free)} free for the store"),
        Field("verdict cache", _place(places.verdict_cache)),
        Field("HF cache", _place(places.hub_cache)),
        *(Field("models.yaml", str(path)) for path in places.config_files),
        Field("Python", str(places.python)),
    ]


def _place(place: Place) -> str:
    return f"{place.path}{'' if place.exists else ' (not there yet)'}"


def _trio(trio: TrioFacts) -> Iterator[Field]:
    yield Field("files", _files(trio), FILE_STYLES[trio.files])
    if trio.problem:
        yield Field("problem", trio.problem)
    if trio.files != "unusable":
        yield from _memory(trio.memory)
    if trio.vocabularies:
        yield Field("vocabulary", _vocabulary(trio.vocabularies))


def _files(trio: TrioFacts) -> str:
    size = f" ({size_text(trio.missing_bytes)})" if trio.missing_bytes else ""
    return f"missing {', '.join(trio.missing)}{size}" if trio.missing else trio.files


def _memory(memory: MemoryFit) -> Iterator[Field]:
    yield _fits("fits", memory, memory.fits, memory.available_bytes)
    if memory.fits_gpu:
        yield _fits("fits GPU", memory, memory.fits_gpu, memory.gpu_free_bytes)


def _fits(name: str, memory: MemoryFit, verdict: Verdict, available: int | None) -> Field:
    room = "unknown how much is free" if available is None else f"{size_text(available)} free"
    return Field(name, f"{verdict} ({_needed(memory)}; {room})", VERDICT_STYLES[verdict])


def _needed(memory: MemoryFit) -> str:
    if memory.estimated_bytes is None:
        return "the size of a file is not declared"
    needed = f"estimated {size_text(memory.estimated_bytes)}"
    if memory.weights_only:
        return f"{needed} for the weights alone"
    return f"{needed} with a context of {memory.context or DEFAULT_CTX:,} tokens"


def _vocabulary(both: Vocabularies) -> str:
    if both.first_difference is not None:
        return f"draft and target differ, first in token {both.first_difference:,}"
    sizes: Sequence[int] = sorted({both.draft_tokens, both.target_tokens})
    counts = " and ".join(f"{size:,}" for size in sizes)
    return f"draft and target share theirs, {counts} tokens"
