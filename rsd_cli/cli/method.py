"""What --strategy and the options beside it ask for together. Refuses what does not go together; runs nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from rsd_cli.decoding.strategies import check_sampling, check_speculative, parse
from rsd_cli.decoding.weighting import weight_of
from rsd_cli.errors import UsageError
from rsd_cli.rewards.families import AGGREGATES

if TYPE_CHECKING:
    from rsd_cli.decoding.strategies import Strategy
    from rsd_cli.decoding.trajectory import Settings
    from rsd_cli.rewards.families import Aggregate

RSD = "rsd"
BINARY = "binary"
SHARED: tuple[Literal["run", "problem"], ...] = ("run", "problem")


@dataclass(frozen=True)
class Wishes:
    """The options as they were given; None where one was not."""

    strategy: str
    threshold: float | None = None
    weighting: str | None = None
    target_share: float | None = None
    share_per: str | None = None
    beta: float | None = None
    aggregate: str | None = None
    speculative: bool | None = None


@dataclass(frozen=True)
class Method:
    """How answers are made: a strategy, and the wishes that it is used with, checked."""

    strategy: Strategy
    wishes: Wishes
    share_per: Literal["run", "problem"]
    aggregate: Aggregate

    def settle(self, settings: Settings, threshold: float) -> Settings:
        """The settings with the method in them. `threshold` is the trio's, for strategies without their own."""
        wishes, own = self.wishes, self.strategy.kind.threshold
        check_sampling(self.strategy, settings.sampling.temperature if settings.sampling else 0.0)
        default = threshold if own is None else own
        return replace(
            settings,
            strategy=str(self.strategy),
            threshold=default if wishes.threshold is None else wishes.threshold,
            weighting=wishes.weighting or BINARY,
            target_share=wishes.target_share,
            share_per=self.share_per,
            beta=wishes.beta,
            aggregate=self.aggregate,
            speculative=bool(wishes.speculative),
        )


def wished(
    strategy: str | None,
    threshold: float | None,
    weighting: str | None,
    target_share: float | None,
    share_per: str | None,
    beta: float | None,
    aggregate: str | None,
    speculative: bool | None,
) -> Wishes | None:
    """The options of a conversation, checked; None where none of them was given."""
    given = (strategy, threshold, weighting, target_share, share_per, beta, aggregate, speculative)
    if all(each is None for each in given):
        return None
    wishes = Wishes(
        strategy or RSD, threshold, weighting, target_share, share_per, beta, aggregate, speculative
    )
    method_of(wishes)
    return wishes


def method_of(wishes: Wishes) -> Method:
    """Check what was asked for; raises UsageError."""
    strategy = parse(wishes.strategy)
    weight_of(wishes.weighting or BINARY, 0.0)
    if wishes.target_share is not None and (wishes.threshold is not None or wishes.weighting):
        raise UsageError(
            f"--target-share {wishes.target_share:g} finds its own threshold, and another one is given.",
            "Leave out --threshold and --weighting, or --target-share.",
        )
    if wishes.speculative:
        check_speculative(strategy, "--speculative")
    share_per, aggregate = wishes.share_per or SHARED[0], wishes.aggregate or AGGREGATES[0]
    return Method(strategy, wishes, _share_per(share_per), _aggregate(aggregate))


def _share_per(text: str) -> Literal["run", "problem"]:
    known = next((each for each in SHARED if each == text), None)
    if known is None:
        raise UsageError(f"--share-per {text[:50]!r} is unknown.", f"Choose one of {', '.join(SHARED)}.")
    return known


def _aggregate(text: str) -> Aggregate:
    known = next((each for each in AGGREGATES if each == text), None)
    if known is None:
        raise UsageError(f"--aggregate {text[:50]!r} is unknown.", f"Choose one of {', '.join(AGGREGATES)}.")
    return known
