"""`rsd doctor`: versions, hardware, settings and trios, to see what fits or to paste into a report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsd_cli.cli import options

if TYPE_CHECKING:
    from rsd_cli.engine.llama import Device
    from rsd_cli.errors import UsageError
    from rsd_cli.registry.environment import Build, Cpu, Problem, Report
    from rsd_cli.registry.fitness import Room, TrioFacts
    from rsd_cli.registry.schema import Registry

BROKEN_ENGINE = 3
LONGEST_REASON = 500


def doctor(
    *,
    as_json: options.AsJson = False,
    models: options.ModelsFile = None,
    trio: Annotated[
        str | None, typer.Option("--trio", "-t", metavar="NAME", help="Only this trio; default all.")
    ] = None,
    ctx: options.Ctx = 0,
) -> None:
    """Show versions, hardware, settings, caches, and which trios are present and fit.

    Loads no model and uses no network. Exit code 3 if llama.cpp cannot be loaded.
    """
    registry, bad_registry = _registry(models, trio)
    report = _examine(models, registry, bad_registry, [trio] if trio else None, ctx)
    if as_json:
        typer.echo(_as_json(report))
    else:
        from rsd_cli.display.doctor import show_report
        from rsd_cli.display.tables import result_console

        show_report(result_console(), report)
    if report.engine_problem:
        raise typer.Exit(BROKEN_ENGINE)
    if bad_registry:
        raise bad_registry


def _registry(models: Path | None, trio: str | None) -> tuple[Registry | None, UsageError | None]:
    """A broken models.yaml is part of the report; an unknown trio is not."""
    from rsd_cli.errors import UsageError
    from rsd_cli.registry.loading import load_registry

    try:
        registry = load_registry(models)
    except UsageError as error:
        return None, error
    if trio:
        registry.trio(trio)
    return registry, None


def _examine(
    models: Path | None,
    registry: Registry | None,
    bad_registry: UsageError | None,
    trios: list[str] | None,
    ctx: int,
) -> Report:
    from rsd_cli.registry import environment, fitness, memory
    from rsd_cli.registry.store import Store

    before = dict(os.environ)  # the engine adds settings of its own
    build, devices, engine_problem = _engine()
    room = fitness.Room(memory.available_memory(), memory.gpu_memory(devices))
    return environment.Report(
        versions=_versions(build),
        build=build,
        engine_problem=engine_problem,
        devices=devices,
        available_memory=room.memory,
        cpu=_cpu(devices),
        openmp=environment.thread_settings(before, os.environ),
        environment=environment.relevant_variables(before),
        places=environment.places(Store(offline=True), models, before),
        models_problem=environment.Problem(bad_registry.message, bad_registry.hint) if bad_registry else None,
        trios=_trios(registry, trios, ctx, room) if registry else (),
    )


def _trios(registry: Registry, names: list[str] | None, ctx: int, room: Room) -> tuple[TrioFacts, ...]:
    from rsd_cli.registry.fitness import trio_facts
    from rsd_cli.registry.store import Store

    store = Store(offline=True)
    return tuple(trio_facts(name, registry, store, ctx, room) for name in names or registry.trios)


def _engine() -> tuple[Build | None, tuple[Device, ...], Problem | None]:
    """What llama.cpp says about itself, or why it cannot be asked."""
    from rsd_cli.registry.environment import Problem

    try:
        devices = _devices()
        return _build(devices), devices, None
    except Exception as error:  # noqa: BLE001 - a broken package fails with anything from OSError to StopIteration
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return None, (), Problem(reason[:LONGEST_REASON], _how_to_reinstall())


def _devices() -> tuple[Device, ...]:
    """All devices. ggml calls all of the CPU's memory free, so that figure comes from the system."""
    from dataclasses import replace

    from rsd_cli.engine import llama
    from rsd_cli.registry.memory import available_memory

    return tuple(
        replace(device, free=available_memory()) if device.name == "CPU" else device
        for device in llama.devices()
    )


def _build(devices: tuple[Device, ...]) -> Build:
    from rsd_cli.engine import llama
    from rsd_cli.registry.environment import Build, features

    said = llama.build()
    by_backend = features(said["features"])
    return Build(
        llama_cpp_commit=said["llama_cpp_commit"],
        ggml=said["ggml"],
        system_info=said["features"],
        features=by_backend,
        gpu_offload=llama.can_offload(),
        blas=any(device.name.startswith("BLAS") for device in devices),
        openmp="OPENMP" in by_backend.get("CPU", ()),
        amx_works=llama.amx_works(),
    )


def _how_to_reinstall() -> str:
    import importlib.metadata
    import shlex
    import sys

    wanted = importlib.metadata.requires("rsd-cli") or []
    package = next((name for name in wanted if name.startswith("llama-cpp-python")), "llama-cpp-python")
    pip = [sys.executable, "-m", "pip", "install", "--force-reinstall", "--no-cache-dir", package]
    return f"Reinstall it: `{shlex.join(pip)}`"


def _versions(build: Build | None) -> dict[str, str]:
    import platform

    import rsd_cli

    return {
        "rsd": rsd_cli.__version__,
        "llama_cpp_python": _package_version("llama-cpp-python"),
        "llama_cpp": build.llama_cpp_commit if build else "unknown",
        "ggml": build.ggml if build else "unknown",
        "python": platform.python_version(),
        "system": _system(),
    }


def _package_version(name: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _system() -> str:
    import platform

    try:
        distribution = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:  # not Linux
        return platform.platform()
    kernel = f"{platform.system()} {platform.release()}"
    return ", ".join(filter(None, [distribution, kernel, platform.machine(), " ".join(platform.libc_ver())]))


def _cpu(devices: tuple[Device, ...]) -> Cpu:
    import platform

    from rsd_cli.engine.cores import usable_cores
    from rsd_cli.registry.environment import Cpu

    described = next((device.description for device in devices if device.name == "CPU"), "")
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Cpu(described or platform.processor() or platform.machine(), usable_cores(), threads)


def _as_json(report: Report) -> str:
    from dataclasses import asdict

    return json.dumps(asdict(report), indent=2, default=str)
