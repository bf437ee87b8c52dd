"""What --strategy and the options beside it ask for together. Refuses what does not go together; runs nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

from rsd_cli.cli.options import one_of
from rsd_cli.decoding.strategies import STRATEGIES, check_sampling, check_speculative, parse
from rsd_cli.decoding.weighting import heeds_threshold, weight_of
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

    strategy: str | None = None
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


def going_on(given: Wishes, kept: Settings) -> Wishes:
    """What is given, and the rest as a conversation has it; another strategy begins anew, without the rest.

    A given budget takes the place of a kept threshold and weighting, and one of these that of a kept budget.
    """
    strategy = parse(kept.strategy)
    if given.strategy is not None and parse(given.strategy) != strategy:
        return given
    has_rule = given.threshold is not None or given.weighting is not None
    has_budget = given.target_share is not None or (kept.target_share is not None and not has_rule)
    before = Wishes(
        strategy=kept.strategy,
        threshold=None if has_budget else kept.threshold,
        weighting=None if has_budget else kept.weighting,
        target_share=kept.target_share if has_budget else None,
        share_per=kept.share_per if has_budget else None,
        beta=kept.beta if strategy.kind.draws else None,
        aggregate=kept.aggregate if strategy.choice == "best" else None,
        speculative=kept.speculative and strategy.has_pair,
    )
    return replace(before, **{name: value for name, value in asdict(given).items() if value is not None})


def begun_anew(settings: Settings, threshold: float) -> Settings:
    """A strategy without the options that another was used with; `threshold` is the trio's, as for a method.

    Speculation stays: it is of no effect on what is written.
    """
    own = parse(settings.strategy).kind.threshold
    return replace(
        settings,
        threshold=threshold if own is None else own,
        weighting=BINARY,
        target_share=None,
        share_per=SHARED[0],
        beta=None,
        aggregate=AGGREGATES[0],
    )


def method_of(wishes: Wishes) -> Method:
    """Check what was asked for; raises UsageError."""
    strategy = parse(wishes.strategy or RSD)
    weight_of(wishes.weighting or BINARY, 0.0)
    if wishes.target_share is not None and (wishes.threshold is not None or wishes.weighting):
        raise UsageError(
            f"--target-share {wishes.target_share:g} finds its own threshold, and another one is given.",
            "Leave out --threshold and --weighting, or --target-share.",
        )
    if wishes.speculative:
        check_speculative(strategy, "--speculative")
    share_per = one_of("--share-per", wishes.share_per or SHARED[0], SHARED)
    aggregate = one_of("--aggregate", wishes.aggregate or AGGREGATES[0], AGGREGATES)
    _check_meaning(strategy, wishes)
    return Method(strategy, wishes, share_per, aggregate)


def _check_meaning(strategy: Strategy, wishes: Wishes) -> None:
    """Refuse what would be of no effect."""
    if wishes.share_per is not None and wishes.target_share is None:
        raise UsageError(
            f"--share-per {wishes.share_per} means nothing without a --target-share.",
            "Add --target-share, or leave it out.",
        )
    if wishes.beta is not None and not strategy.kind.draws:
        raise _means_nothing(
            f"--beta {wishes.beta:g}", strategy, [n for n, k in STRATEGIES.items() if k.draws]
        )
    if wishes.aggregate is not None and strategy.choice != "best":
        choosing = [name for name, kind in STRATEGIES.items() if kind.choice == "best"]
        raise _means_nothing(f"--aggregate {wishes.aggregate}", strategy, choosing)


def check_effect(method: Method) -> None:
    """Refuse a criterion where no step is accepted or rejected, and a threshold where the weighting has its own.

    Only for what was given for this strategy alone: what holds for a whole batch or conversation may find strategies
    in it that have no use for it.
    """
    wishes, given = method.wishes, {}
    if wishes.threshold is not None:
        given["threshold"] = f"--threshold {wishes.threshold:g}"
    if wishes.weighting is not None:
        given["weighting"] = f"--weighting {wishes.weighting}"
    if wishes.target_share is not None:
        given["target_share"] = f"--target-share {wishes.target_share:g}"
    if given and not method.strategy.kind.gates:
        gating = [name for name, kind in STRATEGIES.items() if kind.gates]
        raise _means_nothing(next(iter(given.values())), method.strategy, gating)
    if "threshold" in given and wishes.weighting is not None and not heeds_threshold(wishes.weighting):
        raise UsageError(
            f"{given['threshold']} means nothing with {given['weighting']}.", "Leave out one of them."
        )


def _means_nothing(option: str, strategy: Strategy, others: list[str]) -> UsageError:
    return UsageError(
        f"{option} means nothing with --strategy {strategy}.",
        f"Leave it out; it is for {', '.join(others)}.",
    )
