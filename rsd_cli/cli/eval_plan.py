"""What `rsd eval` is asked to run: strategies with their own settings, and what their answers depend on."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import rsd_cli
from rsd_cli.cli.method import SHARED, Method, Wishes, check_effect, method_of
from rsd_cli.decoding.strategies import check_sampling
from rsd_cli.decoding.weighting import WEIGHTINGS
from rsd_cli.errors import UsageError
from rsd_cli.rewards.families import AGGREGATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rsd_cli.cli.shape import Shape
    from rsd_cli.cli.warm import FoundTrio
    from rsd_cli.decoding.trajectory import Settings
    from rsd_cli.evaluation.taskdata import TaskData
    from rsd_cli.rewards.spec import PrmSpec

BETWEEN = re.compile(r",(?!\s*[a-z]+=)")
WORDS = "|".join([*WEIGHTINGS, *AGGREGATES, *SHARED])
OPTION = re.compile(rf"--(?P<key>[a-z-]+)(?: (?P<value>'[^']*'|\d\S*?|(?:{WORDS})\S*?)(?=[.,]?(?:\s|$)))?")
SAMPLING_TEMPERATURE = 0.7  # the paper's baselines that need several answers


def _within(low: float, high: float) -> Callable[[str], float]:
    """A reader of numbers in a range, its ends included; NaN lies in none."""

    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _flag(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(text)
    return text == "on"


def _word(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


KEYS: dict[str, Callable[[str], Any]] = {
    "threshold": _within(0, 1),
    "weighting": _word,
    "target_share": _within(0, 1),
    "share_per": _word,
    "beta": _within(0.01, 1e6),
    "aggregate": _word,
    "speculative": _flag,
    "temperature": _within(0, 10),
}


@dataclass(frozen=True)
class Contender:
    """A strategy of the table: its name there, and how it answers."""

    name: str
    method: Method
    temperature: float | None = None

    def settings(self, base: Settings, threshold: float) -> Settings:
        """What it answers with; several answers to a question need a temperature."""
        sampling = base.sampling
        several = self.method.strategy.samples * self.method.strategy.width > 1
        warmth = SAMPLING_TEMPERATURE if several and self.temperature is None else self.temperature
        if sampling and warmth is not None:
            sampling = replace(sampling, temperature=warmth)
        return self.method.settle(replace(base, sampling=sampling), threshold)


def contenders(text: str) -> tuple[Contender, ...]:
    """The strategies of `--strategies`: names separated by commas, each with settings behind slashes.

    A comma before KEY= stands between the parameters of a weighting.
    """
    found = tuple(_contender(part.strip()) for part in BETWEEN.split(text) if part.strip())
    if not found:
        raise UsageError("--strategies names none.", "Name some: rsd,target,draft")
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--strategies names {twice} twice.", "Name each once.")
    return found


def _contender(text: str) -> Contender:
    name, *settings = text.split("/")
    values: dict[str, Any] = {}
    for setting in settings:
        key, value = _read(setting)
        if key in values:
            raise UsageError(f"{setting!r} in --strategies is the second of its kind.", "Give each once.")
        values[key] = value
    temperature = values.pop("temperature", None)
    try:
        method = method_of(Wishes(name, **values))
        check_effect(method)
        if temperature is not None:
            check_sampling(method.strategy, temperature)
    except UsageError as error:
        raise UsageError(f"In --strategies, {_slashed(error.message)}", _slashed(error.hint)) from None
    return Contender("/".join([str(method.strategy), *settings]), method, temperature)


def _read(setting: str) -> tuple[str, Any]:
    """The field of a wish and its value."""
    name, _, value = setting.partition("=")
    key = name.replace("-", "_")
    read = KEYS.get(key)
    try:
        if read:
            return key, read(value)
    except ValueError:
        pass
    raise UsageError(
        f"{setting!r} in --strategies is {'no possible value' if read and value else 'no setting'}.",
        f"Write NAME/KEY=VALUE with one of {', '.join(each.replace('_', '-') for each in KEYS)}.",
    )


def _slashed(text: str) -> str:
    """A sentence about options in the way in which they are written here: /KEY=VALUE."""
    told = text.replace("--strategy ", "").replace("--speculative ", "/speculative=on ")
    return OPTION.sub(
        lambda match: f"/{match['key']}" + (f"={match['value']}" if match["value"] else ""), told
    )


def asked_prm(found: FoundTrio, field: Iterable[Contender]) -> PrmSpec | None:
    """The reward model, if a strategy asks one: it is only looked up as far as it is needed."""
    return found.prm if any("prm" in each.method.strategy.roles for each in field) else None


def fingerprint(
    found: FoundTrio,
    field: Iterable[Contender],
    shape: Shape,
    base: Settings,
    trio: str,
    data: dict[str, TaskData],
) -> dict[str, Any]:
    """What all answers of a folder depend on, besides their strategies."""
    prm = asked_prm(found, field)
    return {
        "rsd": rsd_cli.__version__,
        "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
        "trio": trio,
        "models": found.hashes,
        "prm": prm.identity if prm else None,
        "ctx": shape.ctx,
        "kv_type": shape.kv_type,
        "max_tokens": base.max_tokens,
        "max_steps": base.max_steps,
        "seed": base.seed,
        "sampling": asdict(base.sampling) if base.sampling else None,
        "data": {task: asdict(each.origin) for task, each in data.items()},
    }


def grading_versions(data: Iterable[TaskData]) -> dict[str, str]:
    """Versions of what grades the answers, besides our own."""
    with_formulas = any(each.task.answer_type == "maths" for each in data)
    return {"math_verify": importlib.metadata.version("math-verify")} if with_formulas else {}
