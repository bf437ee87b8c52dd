"""What answers cost: tokens, compute and time by role. From their records; grades nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsd_cli.errors import UsageError
from rsd_cli.records import ROLES, RoleTime, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rsd_cli.records import Candidate, Record, Rejected, Role, Step

SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


@dataclass(frozen=True)
class Compute:
    """FLOPs of one role: reading (the prompt and others' steps) apart from writing its own."""

    reading: float = 0.0
    writing: float = 0.0

    def __add__(self, other: Compute) -> Compute:
        return Compute(self.reading + other.reading, self.writing + other.writing)

    @property
    def total(self) -> float:
        """Both together."""
        return self.reading + self.writing


@dataclass(frozen=True)
class Cost:
    """What answers cost, by role: tokens, FLOPs, and time in the models; and the tokens of all judged steps.

    The time of a decode that several rows share is split by their tokens, so that it adds up to what the models
    took with any number of rows side by side.
    """

    tokens: dict[Role, Usage]
    flops: dict[Role, Compute]
    times: dict[Role, RoleTime]
    judged: int = 0

    @property
    def total_flops(self) -> float:
        """All roles, PRM included."""
        return sum(compute.total for compute in self.flops.values())

    @property
    def seconds(self) -> float:
        """In all models."""
        return sum(spent.prompt_ms + spent.decode_ms for spent in self.times.values()) / 1000


def cost_of(records: Iterable[Record]) -> Cost:
    """All tokens of these answers, not what pads batches: 2 x parameters x tokens (paper, section 4)."""
    tokens: dict[Role, Usage] = {}
    flops: dict[Role, Compute] = {}
    times: dict[Role, RoleTime] = {}
    judged = 0
    for record in records:
        judged += sum(map(_judged, record.steps))
        for role, used in record.usage.items():
            tokens[role] = tokens.get(role, Usage()) + used
            if role in record.models:
                spent = compute(used, record.models[role].parameters)
                flops[role] = flops.get(role, Compute()) + spent
        for role, time in record.timings.roles.items():
            times[role] = times.get(role, RoleTime()) + time
    return Cost(tokens, flops, times, judged)


def compute(used: Usage, parameters: float) -> Compute:
    """FLOPs of a role's tokens."""
    return Compute(reading=2.0 * parameters * used.fed, writing=2.0 * parameters * used.generated)


def projected(tokens: Mapping[Role, Usage], parameters: Mapping[Role, float]) -> dict[Role, Compute]:
    """The compute of the measured tokens if the models had other sizes. A projection, not a measurement.

    Other models would have written other tokens, and a PRM that read none here (a head on the draft) reads none.
    """
    return {role: compute(used, parameters[role]) for role, used in tokens.items()}


def parse_parameters(text: str) -> dict[Role, float]:
    """Sizes of draft, target and PRM as in `7e9,72e9,7e9` or `7B,72B,7B`; UsageError for anything else."""
    sizes = [_size(part.strip().lower()) for part in text.split(",")]
    known = [size for size in sizes if size is not None]
    if len(sizes) != len(ROLES) or len(known) != len(ROLES):
        raise UsageError(
            f"--project-params {text!r} is no list of three sizes.", "Draft, target, PRM: 7e9,72e9,7e9"
        )
    return dict(zip(ROLES, known, strict=True))


def unjudged(cost: Cost) -> Cost:
    """A majority needs no PRM, even where one was asked for the other ways to choose."""
    return Cost(
        {role: used for role, used in cost.tokens.items() if role != "prm"},
        {role: spent for role, spent in cost.flops.items() if role != "prm"},
        {role: spent for role, spent in cost.times.items() if role != "prm"},
    )


def _judged(step: Step) -> int:
    """The tokens that had a reward: the step's own, and those of what was written in its place."""
    tried: list[Candidate | Rejected] = [*step.others, *([step.rejected] if step.rejected else [])]
    own = step.tokens if step.reward is not None else 0
    return own + sum(each.tokens for each in tried if each.reward is not None)


def _size(text: str) -> float | None:
    factor = SUFFIXES.get(text[-1:], 1.0)
    try:
        size = float(text[:-1] if factor != 1 else text) * factor
    except ValueError:
        return None
    return size if 0 < size < 1e18 else None
