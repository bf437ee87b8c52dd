"""Does RSD pay here against the target alone, in time and in compute? A model of costs, no measurement.

A token costs a role so much when it reads it and so much when it writes it. RSD's bill is every role's tokens at
these prices; the target's alone is the prompt read and its answer written, at prices of its own: the target alone
decodes all seats together, and in RSD only those whose step was rejected.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rsd_cli.engine.pace import Pace
    from rsd_cli.evaluation.speed import Speed
    from rsd_cli.evaluation.workload import Tokens, Work
    from rsd_cli.records import Role, RoleTime, Usage

GRID = 1000  # acceptances between 0 and 1 that are tried
EVEN = 0.03  # around 1: no reason to choose either
FEWEST = 20  # tokens from which on a speed can be told


@dataclass(frozen=True)
class Price:
    """What one token costs a role: read, or written. In seconds, or in FLOPs."""

    read: float
    write: float

    def bill(self, tokens: Tokens) -> float:
        """The cost of a role's tokens."""
        return self.read * tokens.read + self.write * tokens.written


Prices = dict["Role", Price]


@dataclass(frozen=True)
class Tariff:
    """RSD's prices by role, and what the target alone takes in all for its own answers."""

    prices: Prices
    alone: float


@dataclass(frozen=True)
class Aspect:
    """RSD's cost as a multiple of the target's alone, below 1 if it pays; and what would make it break even.

    Of `predicted` and `measured` one is known at least; what nothing was predicted of has no break-even either.
    `acceptance` is the least from which on RSD pays, None if none does or none can be told; `size_ratio` is the
    least number of times that the target would have to be the draft's size with the same draft and PRM, None if no
    target is large enough.
    """

    predicted: float | None
    measured: float | None
    acceptance: float | None
    size_ratio: float | None

    @property
    def ratio(self) -> float:
        """The measured one if there is one."""
        return next(known for known in (self.measured, self.predicted) if known is not None)

    @property
    def is_disputed(self) -> bool:
        """Whether one of them says that RSD pays, and the other that it does not."""
        return self.predicted is not None and (self.ratio < 1) != (self.predicted < 1)


@dataclass(frozen=True)
class Verdict:
    """What RSD costs against the target alone. `time` is None where it was not measured and a speed is not known.

    Acceptances are of the tokens of the draft's own steps. `scales` is whether anything can be told of other ones:
    not where the target wrote without a rejection, or what the draft proposed, or where steps had several candidates.
    """

    acceptance: float
    size_ratio: float
    time: Aspect | None
    compute: Aspect
    scales: bool = True

    @property
    def sentences(self) -> tuple[str, ...]:
        """The same in plain English, one sentence or two for each aspect."""
        told = [self._tell(self.time, "takes", "time")] if self.time else []
        return (*told, self._tell(self.compute, "needs", "compute"))

    def to_json(self) -> dict[str, Any]:
        """Figures and sentences, as JSON knows them."""
        return asdict(self) | {"sentences": list(self.sentences)}

    def _tell(self, aspect: Aspect, verb: str, what: str) -> str:
        estimated = "an estimated " if aspect.measured is None else ""
        said = f"RSD {verb} {estimated}{aspect.ratio:.2f} times the target's {what}"
        if aspect.measured is not None and aspect.predicted is not None:
            said += f" (estimated: {aspect.predicted:.2f})"
        if abs(aspect.ratio - 1) <= EVEN:
            return f"{said}: about the same."
        if aspect.is_disputed:
            pays = "pays" if aspect.ratio < 1 else "does not pay"
            return f"{said}: it {pays}. The estimate is wrong here, so it can't tell what would change that."
        if aspect.ratio < 1:
            return f"{said}: it pays{self._margin(aspect)}."
        said += f": it does not pay at {self.acceptance:.0%} acceptance of tokens."
        return said if aspect.predicted is None else f"{said} {self._remedy(aspect)}"

    @staticmethod
    def _margin(aspect: Aspect) -> str:
        at = aspect.acceptance
        return f" from an estimated {at:.0%} acceptance of tokens on" if at else ""

    def _remedy(self, aspect: Aspect) -> str:
        larger = (
            f"a target of {aspect.size_ratio:.1f} times the draft's size (here {self.size_ratio:.1f})"
            if aspect.size_ratio is not None
            else ""
        )
        if aspect.acceptance is not None:
            return f"It would from an estimated {aspect.acceptance:.0%} on" + (
                f", or with {larger}." if larger else "."
            )
        if not self.scales:
            return f"It would with {larger}." if larger else "No larger target would change that."
        no = "No acceptance would make it pay with these models"
        return f"{no}; {larger} would." if larger else f"{no}."


def measured_tariff(speeds: Mapping[Role, Sequence[Speed]], seats: int, work: Work) -> Tariff:
    """Seconds, from speeds that were measured at several numbers of seats, this one among them.

    In RSD a generator writes for its share of the seats.
    """
    writing = sum(work.rsd[role].written for role in ("draft", "target") if role in speeds)
    at = {role: next(each for each in known if each.seats == seats) for role, known in speeds.items()}
    prices: Prices = {}
    for role, known in speeds.items():
        share = work.rsd[role].written / writing if role in work.rsd and writing else 1.0
        prices[role] = Price(1 / at[role].prompt, _write_seconds(known, max(1.0, seats * share)))
    return Tariff(prices, Price(1 / at["target"].prompt, 1 / at["target"].decode).bill(work.alone))


def _write_seconds(known: Sequence[Speed], rows: float) -> float:
    """Seconds per token with so many rows in a decode, which take as long as measured, or between."""
    of_decode = np.interp(rows, [each.seats for each in known], [each.seats / each.decode for each in known])
    return float(of_decode) / rows


def spent_tariff(
    tokens: Mapping[Role, Usage],
    times: Mapping[Role, RoleTime],
    paces: Mapping[Role, Pace],
    work: Work,
) -> Tariff | None:
    """Seconds, from what RSD's answers took; None if a role read or wrote too little to tell.

    A PRM that wrote nothing has no price for writing, and needs none. Where the target's pace is not known, its
    tokens cost alone what they cost in RSD.
    """
    prices: Prices = {}
    for role, used in tokens.items():
        spent = times.get(role)
        if not used.decoded:
            continue
        if spent is None or used.fed < FEWEST or (role != "prm" and used.generated < FEWEST):
            return None
        write = spent.decode_ms / used.generated if used.generated else 0.0
        prices[role] = Price(spent.prompt_ms / used.fed / 1000, write / 1000)
    if "target" not in prices:
        return None
    own = paces.get("target")
    if own is None or not own.sizes:
        return Tariff(prices, prices["target"].bill(work.alone))
    writing = sum(n * _decode_seconds(own, paces.get("draft"), rows) for n, rows in work.rota.decodes)
    return Tariff(prices, prices["target"].read * work.alone.read + writing)


def _decode_seconds(own: Pace, other: Pace | None, rows: int) -> float:
    """Of a decode of so many rows; if there were none so large, it grows as another model's on this machine."""
    largest = own.sizes[-1]
    if rows <= largest or other is None or not other.sizes:
        return own.seconds(rows)
    return own.seconds(largest) * other.seconds(rows) / other.seconds(largest)


def flops_tariff(parameters: Mapping[Role, float], work: Work) -> Tariff:
    """2 x parameters, read or written (paper, section 4)."""
    prices: Prices = {role: Price(2.0 * size, 2.0 * size) for role, size in parameters.items()}
    return Tariff(prices, prices["target"].bill(work.alone))


def bill(work: Mapping[Role, Tokens], prices: Prices) -> float:
    """All roles together; a role without a price costs nothing (a head on the draft's states)."""
    return sum(prices[role].bill(tokens) for role, tokens in work.items() if role in prices)


def predicted_ratio(work: Work, tariff: Tariff) -> float:
    """RSD's bill over the target's alone."""
    return bill(work.rsd, tariff.prices) / tariff.alone


def make_verdict(
    work: Work,
    parameters: Mapping[Role, float],
    seconds: Tariff | None,
    measured_time: float | None = None,
    measured_compute: float | None = None,
) -> Verdict:
    """The verdict on some answers; `measured_…` are RSD's over the target's own, where that has run as well.

    Where RSD wrote too little to tell its prices in `seconds`, the measured time stands alone.
    """
    size_ratio = parameters["target"] / parameters["draft"]
    only_measured = None if measured_time is None else Aspect(None, measured_time, None, None)
    time = _aspect(work, seconds, size_ratio, measured_time) if seconds else only_measured
    compute = _aspect(work, flops_tariff(parameters, work), size_ratio, measured_compute)
    return Verdict(work.acceptance, size_ratio, time, compute, work.scales)


def _aspect(work: Work, tariff: Tariff, size_ratio: float, measured: float | None) -> Aspect:
    return Aspect(
        predicted_ratio(work, tariff),
        measured,
        break_even_acceptance(work, tariff),
        break_even_size(work, tariff, size_ratio),
    )


def break_even_acceptance(work: Work, tariff: Tariff) -> float | None:
    """The least acceptance from which on RSD costs no more than the target alone; None if not even 1 does."""
    least = None
    if not work.scales:
        return None
    for i in range(GRID, -1, -1):
        if bill(work.at(i / GRID), tariff.prices) > tariff.alone:
            break
        least = i / GRID
    return least


def break_even_size(work: Work, tariff: Tariff, size_ratio: float) -> float | None:
    """How many times the draft's size the target would have to be, its prices growing with it; None if never.

    Draft and PRM stay as they are, and so does the acceptance.
    """
    prices = tariff.prices
    others = bill({role: tokens for role, tokens in work.rsd.items() if role != "target"}, prices)
    saved = tariff.alone - prices["target"].bill(work.rsd["target"])
    return size_ratio * others / saved if saved > 0 else None
