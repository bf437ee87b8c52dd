"""`/set KEY VALUE`: settings of a conversation by name, and how they are shown. Asks no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rsd_cli.decoding.strategies import STRATEGIES, check_speculative, parse
from rsd_cli.decoding.trajectory import Settings
from rsd_cli.engine.sampling import Sampling
from rsd_cli.errors import UsageError
from rsd_cli.registry.names import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

Change = Callable[[Settings, str], Settings]
ON_OFF = ("on", "off")


@dataclass(frozen=True)
class Key:
    """A setting by name: its help, the values that completion offers, and what a value changes."""

    help: str
    change: Change
    shown: Callable[[Settings], str]
    values: tuple[str, ...] = ()


def _real(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise ValueError(f"a number from {low:g} to {high:g}")
    return value


def _whole(text: str, low: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if value < low:
        raise ValueError(f"a whole number from {low} on")
    return value


def _threshold(settings: Settings, text: str) -> Settings:
    """It takes the place of a budget, which finds its own."""
    return replace(settings, threshold=_real(text, 0, 1), target_share=None, share_per=Settings.share_per)


def _strategy(settings: Settings, text: str) -> Settings:
    try:
        return replace(settings, strategy=str(parse(text)))
    except UsageError as error:
        raise ValueError(f"one of {', '.join(STRATEGIES)}, some with @N and :AUTHOR") from error


def _draft(settings: Settings, text: str) -> Settings:
    return replace(settings, strategy="rsd" if _is_on(text) else "target")


def _speculative(settings: Settings, text: str) -> Settings:
    if _is_on(text):
        check_speculative(parse(settings.strategy), "/set speculative on")
    return replace(settings, speculative=text == "on")


def _is_on(text: str) -> bool:
    if text not in ON_OFF:
        raise ValueError("on or off")
    return text == "on"


def _temperature(settings: Settings, text: str) -> Settings:
    return replace(settings, sampling=replace(_sampling(settings), temperature=_real(text, 0, 10)))


def _top_p(settings: Settings, text: str) -> Settings:
    return replace(settings, sampling=replace(_sampling(settings), top_p=_real(text, 0, 1)))


def _sampling(settings: Settings) -> Sampling:
    return settings.sampling or Sampling()


def _seed(settings: Settings, text: str) -> Settings:
    return replace(settings, seed=_whole(text, -(2**63)))


KEYS: dict[str, Key] = {
    "threshold": Key(
        "least reward with which a draft step stays, 0 to 1",
        _threshold,
        lambda settings: f"{settings.threshold:g}",
    ),
    "strategy": Key(
        "who writes",
        _strategy,
        lambda settings: settings.strategy,
        tuple(str(parse(name)) for name in STRATEGIES),
    ),
    "draft": Key(
        "off lets the target write everything",
        _draft,
        lambda settings: "off" if settings.strategy == "target" else "on",
        ON_OFF,
    ),
    "speculative": Key(
        "on lets the target write its steps over tokens that the draft proposes",
        _speculative,
        lambda settings: "on" if settings.speculative else "off",
        ON_OFF,
    ),
    "temperature": Key(
        "0 takes the likeliest token",
        _temperature,
        lambda settings: f"{_sampling(settings).temperature:g}",
    ),
    "top-p": Key(
        "draws among tokens with this much probability together",
        _top_p,
        lambda settings: f"{_sampling(settings).top_p:g}",
    ),
    "seed": Key("seed for temperatures above 0", _seed, lambda settings: str(settings.seed)),
    "max-tokens": Key(
        "longest answer",
        lambda settings, text: replace(settings, max_tokens=_whole(text, 1)),
        lambda settings: str(settings.max_tokens),
    ),
    "max-steps": Key(
        "most steps of an answer",
        lambda settings, text: replace(settings, max_steps=_whole(text, 1)),
        lambda settings: str(settings.max_steps),
    ),
    "system": Key(
        "system prompt; '' for none",
        lambda settings, text: replace(settings, system="" if text in ("''", '""') else text),
        lambda settings: settings.system or "''",
    ),
}


def shown(settings: Settings) -> list[tuple[str, str]]:
    """All keys with their values; before them what only the command line gives, where it did."""
    has_budget = settings.target_share is not None
    keys = [
        (name, key.shown(settings)) for name, key in KEYS.items() if name != "threshold" or not has_budget
    ]
    return [*_given(settings), *keys]


def _given(settings: Settings) -> Iterator[tuple[str, str]]:
    """The options of the method that are not what they are by default."""
    if settings.target_share is not None:
        yield "target-share", f"{settings.target_share:g} of a {settings.share_per}'s steps"
    elif settings.weighting != Settings.weighting:
        yield "weighting", settings.weighting
    if settings.beta is not None:
        yield "beta", f"{settings.beta:g}"
    if settings.aggregate != Settings.aggregate:
        yield "aggregate", settings.aggregate


def method(settings: Settings) -> str:
    """The strategy and what decides about its steps, in a few words."""
    if settings.target_share is None:
        return f"{settings.strategy} at {settings.threshold:g}"
    return f"{settings.strategy} at a target share of {settings.target_share:g}"


def change(settings: Settings, argument: str) -> Settings:
    """The settings after `/set KEY VALUE`; UsageError if there is no such key or value."""
    name, *text = argument.split(maxsplit=1) or [""]
    key, value = name.lower().replace("_", "-"), "".join(text).strip()
    if key not in KEYS:
        near = nearest(key, KEYS)
        hint = f"Did you mean {near}?" if near else f"The keys are {', '.join(KEYS)}."
        raise UsageError(f"/set {name!r} is unknown.", hint)
    if not value:
        raise UsageError(f"/set {key} needs a value.", f"{KEYS[key].help}.".capitalize())
    try:
        return KEYS[key].change(settings, value)
    except ValueError as wanted:
        raise UsageError(f"/set {key} takes {wanted}, not {value!r}.") from wanted
