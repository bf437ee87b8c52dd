"""From a finished trajectory to the record that is shown and written. Measures nothing itself."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import rsd_cli
from rsd_cli.decoding.answer import final_answer
from rsd_cli.records import ROLES, Flops, Record, RoleTime, Timings, Usage

if TYPE_CHECKING:
    from rsd_cli.decoding.runner import Finished
    from rsd_cli.engine.llama import Model
    from rsd_cli.records import ModelId, Role


@dataclass(frozen=True)
class Circumstances:
    """What a record tells of its run besides the answer. Times are seconds on `time.perf_counter`'s scale."""

    models: dict[Role, ModelId]
    settings: dict[str, Any]
    started: float
    loaded: float
    ended: float
    target: Model | None
    target_prompt: int
    versions: dict[str, str] = field(default_factory=dict)


def versions(llama_cpp_commit: str) -> dict[str, str]:
    """What computed the answer."""
    return {
        "rsd": rsd_cli.__version__,
        "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
        "llama_cpp": llama_cpp_commit,
        "python": platform.python_version(),
    }


def make_record(finished: Finished, run: Circumstances) -> Record:
    """The record of one answer."""
    trajectory = finished.trajectory
    return Record(
        id=trajectory.problem.id,
        question=trajectory.problem.question,
        answer=trajectory.text,
        final_answer=final_answer(trajectory.text),
        steps=tuple(trajectory.steps),
        usage={role: finished.usage.get(role, Usage()) for role in ROLES},
        flops=_flops(finished, run),
        timings=_timings(finished, run),
        ended_by=finished.ended_by,
        strategy=trajectory.settings.strategy,
        settings=run.settings | _settings(finished),
        models=run.models,
        versions=run.versions,
        seed=trajectory.settings.seed,
    )


def timeless(record: Record) -> Record:
    """The record without its times, which no two runs share."""
    steps = tuple(replace(step, ms=0.0) for step in record.steps)
    return replace(record, steps=steps, timings=Timings(0.0, None, 0.0, dict.fromkeys(ROLES, RoleTime())))


def _settings(finished: Finished) -> dict[str, Any]:
    settings = asdict(finished.trajectory.settings)
    sampling = settings.pop("sampling") or {}
    return {key: value for key, value in settings.items() if key not in ("strategy", "seed")} | sampling


def _flops(finished: Finished, run: Circumstances) -> Flops:
    """2 x parameters x tokens (paper, section 4) from the tokens that were really decoded."""
    cost = {
        role: 2.0 * run.models[role].parameters * usage.decoded
        for role, usage in finished.usage.items()
        if role in run.models
    }
    return Flops(
        draft=cost.get("draft", 0.0),
        target=cost.get("target", 0.0),
        prm=cost.get("prm", 0.0),
        target_only=_target_only(finished, run),
    )


def _target_only(finished: Finished, run: Circumstances) -> float | None:
    """What the target alone would have needed for the same text; None if no target was loaded."""
    if run.target is None:
        return None
    text = len(run.target.tokenize(finished.trajectory.text))
    return 2.0 * run.models["target"].parameters * (run.target_prompt + text)


def _timings(finished: Finished, run: Circumstances) -> Timings:
    first = finished.trajectory.first_token_at
    return Timings(
        load_ms=_ms(run.loaded - run.started),
        first_token_ms=None if first is None else _ms(first - run.started),
        total_ms=_ms(run.ended - run.started),
        roles={role: _rounded(finished.times.get(role, RoleTime())) for role in ROLES},
    )


def _rounded(spent: RoleTime) -> RoleTime:
    return RoleTime(round(spent.prompt_ms, 1), round(spent.decode_ms, 1))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
