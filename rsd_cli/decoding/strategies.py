"""Strategies by name, NAME[@N][:author]: which policy runs, what it needs, and how its answers are chosen from.

A table and its parser, what a strategy refuses, and the criterion of each answer. The policies are in policies.py,
successors.py and branching.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from rsd_cli.decoding import branching, policies, successors
from rsd_cli.decoding.branching import EXPANSIONS
from rsd_cli.decoding.speculative import speculating
from rsd_cli.decoding.weighting import Acceptance, Budget, Draws, weight_of, within
from rsd_cli.engine.jobs import MAX_SEATS
from rsd_cli.errors import UsageError
from rsd_cli.records import Author
from rsd_cli.registry.names import suggestion

if TYPE_CHECKING:
    from collections.abc import Callable

    from rsd_cli.decoding.branching import Pick
    from rsd_cli.decoding.policies import Policy
    from rsd_cli.decoding.trajectory import Problem, Settings
    from rsd_cli.decoding.weighting import Accepts
    from rsd_cli.records import Role

FORM = re.compile(r"(?P<name>[a-z-]+)(?:@(?P<n>[0-9]{1,4}))?(?::(?P<author>[a-z]+))?")
ALL: tuple[Role, ...] = ("draft", "prm", "target")
PAIR: tuple[Role, ...] = ("draft", "target")
AUTHORS: tuple[Author, ...] = get_args(Author)  # the draft first: the paper samples the small model

Choice = Literal["majority", "best"]


@dataclass(frozen=True)
class Rules:
    """What a run decides for a policy: the criterion, who writes, how many, how one of several is picked."""

    accepts: Accepts
    n: int
    author: Author
    pick: Pick
    beta: float
    max_steps: int


@dataclass(frozen=True)
class Kind:
    """Strategies of one name.

    `roles` are needed, besides an author that may be chosen (`authors`, the first by default) and comes first.
    `n` is the default of @N, None where that means nothing; `lanes` of them are written side by side for each N,
    or `choice` is made among N whole answers. `gates` says that steps are accepted or rejected by a criterion,
    `draws` that one of several steps can be drawn by a beta.
    `threshold` and `beta` are those of the paper, where a strategy has a scale of its own.
    """

    start: Callable[[Rules], Policy]
    roles: tuple[Role, ...]
    authors: tuple[Author, ...] = ()
    n: int | None = None
    lanes: int = 0
    choice: Choice | None = None
    gates: bool = False
    draws: bool = False
    threshold: float | None = None
    beta: float | None = None


STRATEGIES: dict[str, Kind] = {
    "rsd": Kind(lambda rules: policies.rsd(rules.accepts), ALL, gates=True),
    "target": Kind(lambda _: policies.alone("target"), ("target",)),
    "draft": Kind(lambda _: policies.alone("draft"), ("draft",)),
    "speculative": Kind(lambda _: speculating(policies.alone("target")), PAIR),
    "keep-better": Kind(lambda rules: successors.keep_better(rules.accepts), ALL, gates=True),
    "rsd-n": Kind(
        lambda rules: branching.rsd_n(rules.accepts, rules.n, rules.pick),
        ALL,
        n=4,
        lanes=1,
        gates=True,
        draws=True,
    ),
    "gsi": Kind(
        lambda rules: branching.gsi(rules.accepts, rules.n, rules.beta, rules.pick),
        ALL,
        n=4,
        lanes=1,
        gates=True,
        draws=True,
        threshold=0.5,
        beta=20.0,
    ),
    "judge": Kind(lambda rules: successors.judge(rules.accepts), PAIR, gates=True, threshold=7 / 9),
    "glimpse": Kind(
        lambda rules: successors.glimpse(rules.accepts, rules.author),
        PAIR,
        AUTHORS,
        gates=True,
        threshold=0.37,  # an entropy of 1 nat
    ),
    "confidence": Kind(lambda rules: successors.confidence(rules.accepts), PAIR, gates=True, threshold=0.9),
    "first-k-by-target": Kind(lambda rules: successors.first_by_target(rules.n), ("target", "draft"), n=1),
    "process-best-of-n": Kind(
        lambda rules: branching.process_best_of_n(rules.author, rules.n, rules.pick),
        ("prm",),
        AUTHORS,
        n=8,
        lanes=1,
        draws=True,
    ),
    "beam": Kind(
        lambda rules: branching.beam(rules.author, rules.n, rules.max_steps),
        ("prm",),
        AUTHORS,
        n=4,
        lanes=EXPANSIONS,
    ),
    "majority": Kind(lambda rules: policies.alone(rules.author), (), AUTHORS, n=8, choice="majority"),
    "best-of-n": Kind(lambda rules: policies.judged(rules.author), ("prm",), AUTHORS, n=8, choice="best"),
    "audit": Kind(lambda _: policies.audit(), ALL),
}


@dataclass(frozen=True)
class Strategy:
    """A kind of strategy with its N and its author."""

    name: str
    kind: Kind
    n: int
    author: Author

    def __str__(self) -> str:
        """The name as it is written, parts left out that go without saying."""
        chosen = self.kind.authors and self.author != self.kind.authors[0]
        return self.name + (f"@{self.n}" if self.kind.n else "") + (f":{self.author}" if chosen else "")

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that it needs, the first to write first."""
        asked: tuple[Role, ...] = (self.author, *self.kind.roles) if self.kind.authors else self.kind.roles
        return tuple(dict.fromkeys(asked))

    @property
    def width(self) -> int:
        """Seats side by side for each answer."""
        return max(1, self.kind.lanes * self.n)

    @property
    def samples(self) -> int:
        """Whole answers to each question, among which one is chosen."""
        return self.n if self.kind.choice else 1

    @property
    def has_pair(self) -> bool:
        """Whether there are a target to write speculatively and a draft to propose."""
        return set(PAIR) <= set(self.roles)

    @property
    def choice(self) -> Choice | None:
        """How one of the samples is chosen."""
        return self.kind.choice

    @property
    def selects(self) -> bool:
        """Whether it picks among candidates of one model; then no step is accepted or rejected."""
        return bool(self.kind.choice or (self.kind.lanes and self.kind.authors))

    @property
    def gates(self) -> bool:
        """Whether the draft's steps pass a criterion or fail it, and the record has those that fail."""
        return self.kind.gates and not (self.name == "glimpse" and self.author == "target")

    def start(self, rules: Rules) -> Policy:
        """The policy of one answer."""
        return self.kind.start(rules)


def parse(text: str) -> Strategy:
    """The strategy that NAME[@N][:author] means; UsageError with what was probably meant, if there is none."""
    form = FORM.fullmatch(text)
    kind = STRATEGIES.get(form["name"]) if form else None
    if form is None or kind is None:
        name = re.split("[@:]", text)[0]
        known = suggestion(name, STRATEGIES)
        hint = f"It is NAME[@N][:author]; {known}" if name in STRATEGIES else known
        raise UsageError(f"--strategy {text[:50]!r} is unknown.", _sentence(hint))
    return Strategy(form["name"], kind, _number(text, kind, form["n"]), _author(text, kind, form["author"]))


def rejects_nothing(settings: Settings) -> bool:
    """Whether every step that has a reward is accepted, so that the target is asked nothing.

    Where it judges as well (`judge`, `gsi`) it is asked all the same.
    """
    strategy = parse(settings.strategy)
    decides = strategy.gates and strategy.name not in ("judge", "gsi") and settings.target_share is None
    return decides and settings.weighting == "binary" and settings.threshold <= 0


def asks_likelihoods(settings: Settings) -> bool:
    """Whether the target says how probable the draft's own tokens are, which have to be its own as well."""
    return parse(settings.strategy).name == "gsi"


def speculates(settings: Settings) -> bool:
    """Whether a draft is to propose tokens to the target; where there is none of them, nothing is."""
    strategy = parse(settings.strategy)
    return strategy.name == "speculative" or (settings.speculative and strategy.has_pair)


def _number(text: str, kind: Kind, given: str | None) -> int:
    if given is None:
        return kind.n or 1
    if kind.n is None:
        raise UsageError(f"--strategy {text} has a number, which means nothing there.", "Leave it out.")
    most = MAX_SEATS // max(1, kind.lanes)
    if not 1 <= int(given) <= most:
        raise UsageError(f"--strategy {text} is out of range.", f"Possible are @1 to @{most}.")
    return int(given)


def _author(text: str, kind: Kind, given: str | None) -> Author:
    author = next((known for known in kind.authors if known == given), None)
    if author:
        return author
    if given is None:
        return kind.authors[0] if kind.authors else "draft"
    hint = f"Choose one of {', '.join(kind.authors)}." if kind.authors else "Leave it out."
    raise UsageError(f"--strategy {text[:50]} can't be written by {given[:50]!r}.", hint)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def check_sampling(strategy: Strategy, temperature: float) -> None:
    """Refuse strategies that need several texts where every text would be the same."""
    texts = max(strategy.samples, strategy.width)
    if texts > 1 and temperature <= 0:
        raise UsageError(
            f"--strategy {strategy} at temperature 0 would write the same text {texts} times.",
            "Add --temperature 0.7.",
        )


def check_speculative(strategy: Strategy, option: str) -> None:
    """Refuse strategies in which there is nobody to propose tokens, or nobody to propose them to."""
    if not strategy.has_pair:
        roles = (
            f"a {strategy.roles[0]} only"
            if len(strategy.roles) == 1
            else f"{' and '.join(strategy.roles)} only"
        )
        raise UsageError(
            f"{option} needs a draft and a target, --strategy {strategy} has {roles}.",
            "The target alone over the draft's proposals is --strategy speculative.",
        )


class Rulebook:
    """The rules of a run's answers. A budget per run is shared by them, in the order in which steps come.

    Each strategy has its own: rewards of several have nothing in common that a quantile could be taken of.
    """

    def __init__(self) -> None:
        self._budgets: dict[tuple[str, float], Budget] = {}

    def rules(self, strategy: Strategy, settings: Settings, problem: Problem) -> Rules:
        """What holds for one answer; its draws depend on the run's seed, its id and its branch."""
        name = f"{settings.seed}/{problem.id}/{problem.branch}"
        beta = strategy.kind.beta if settings.beta is None else settings.beta
        return Rules(
            accepts=self._criterion(strategy, settings, Draws(f"{name}/accept")),
            n=strategy.n,
            author=strategy.author,
            pick=branching.best if beta is None else branching.soft(beta, Draws(f"{name}/pick")),
            beta=beta or 0.0,
            max_steps=settings.max_steps,
        )

    def _criterion(self, strategy: Strategy, settings: Settings, draws: Draws) -> Accepts:
        share = settings.target_share
        if share is None:
            return Acceptance(weight_of(settings.weighting, settings.threshold), draws)
        if settings.share_per == "problem":
            return within(Budget(share), draws)
        return within(self._budgets.setdefault((str(strategy), share), Budget(share)), draws)
