"""Accuracy against compute as SVG: strategies as points, RSD's thresholds as a curve, the chord beside them.

Colours come from classes that the style sheet gives a meaning. Names are escaped.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

from rsd_cli.decoding.strategies import parse
from rsd_cli.evaluation.report.axes import Frame, axes, horizontal, svg, vertical
from rsd_cli.evaluation.runs import OF_TIME, relative_compute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rsd_cli.evaluation.accounts import Account, Budget, StrategyRun
    from rsd_cli.evaluation.report.axes import Scale
    from rsd_cli.evaluation.runs import TaskRun

Kind = Literal["draft", "target", "mixed", "other"]
WIDE, NARROW = Frame(760, 420), Frame(380, 380)
PIECES = 40  # of the chord, which is a bow on a logarithmic scale
LETTER, LINE = 6.4, 13.0  # mean width and height of a label's character, in pixels


@dataclass(frozen=True)
class Point:
    """A strategy or one of its budgets; compute in any unit, accuracy and its standard error as shares."""

    name: str
    kind: Kind
    compute: float
    accuracy: float
    stderr: float = 0.0

    @property
    def told(self) -> str:
        """In words, for whoever points at it."""
        error = f" ±{100 * self.stderr:.1f}" if self.stderr else ""
        return f"{self.name}: {self.accuracy:.1%}{error}, compute {self.compute:.3g}"


@dataclass(frozen=True)
class Box:
    """A place that something takes."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether two overlap."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def kind_of(run: StrategyRun) -> Kind:
    """Who writes: one model alone, both under the PRM's eyes, or one of them several things to choose from."""
    records = [record for sample in run.samples for record in sample.records]
    steps = [step for record in records for step in record.steps]
    authors = {step.author for step in steps}
    if any(parse(record.strategy).selects for record in records):
        return "other"
    if authors == {"target"} and not any(step.rejected for step in steps):
        return "target"
    judged = any(step.reward is not None or step.rejected for step in steps)
    return "mixed" if judged or len(authors) > 1 else "draft"


def scatter(run: TaskRun, frame: Frame) -> str:
    """The picture of a task.

    Strategies that differ in the threshold alone are joined. Dashed is the chord between draft and target, which
    choosing each question's author at random gives; dotted are the budgets of strategies that choose among several
    answers.
    """
    points = [_point(account, kind_of(each), _unit(run)) for account, each in _accounts(run)]
    curves = [[points[i] for i in group] for group in _thresholds([each for _, each in _accounts(run)])]
    budgets = [list(_budget_points(account, _unit(run))) for account, _ in _accounts(run)]
    every = points + [point for curve in budgets for point in curve]
    x = horizontal([point.compute for point in every], frame)
    edges = [point.accuracy + sign * point.stderr for point in every for sign in (-1, 1)]
    y = vertical(edges, frame)
    unit = "× the target's alone" if _has_target(run) else "TFLOPs"
    drawn = axes(frame, x, y, (f"compute a question ({unit})", "accuracy"))
    drawn += [_chord(points, x, y)]
    drawn += [_line(curve, "budgets", x, y) for curve in budgets if len(curve) > 1]
    drawn += [_line(curve, "curve", x, y) for curve in curves]
    drawn += [_dot(point, x, y, small=True) for curve in budgets for point in curve[:-1]]
    drawn += [_dot(point, x, y, small=False) for point in points]
    drawn += _labels(points, x, y, frame)
    return svg(frame, drawn, f"{run.task}: accuracy against compute. " + "; ".join(p.told for p in points))


def _accounts(run: TaskRun) -> Iterator[tuple[Account, StrategyRun]]:
    """Of the strategies that answered anything."""
    return (
        (account, each)
        for account, each in zip(run.accounts, run.strategies, strict=True)
        if account.answered
    )


def _has_target(run: TaskRun) -> bool:
    return bool(relative_compute(run.accounts, {}))


def _unit(run: TaskRun) -> float:
    """FLOPs of the target's own answer to a question, or 10^12 where it gave none."""
    alone = (account for account in run.accounts if account.strategy == "target" and account.cost.total_flops)
    return next((account.cost.total_flops / account.answered for account in alone), 1e12)


def _point(account: Account, kind: Kind, unit: float) -> Point:
    compute = max(account.cost.total_flops / account.answered / unit, 1e-6)
    return Point(account.strategy, kind, compute, account.accuracy, account.stderr or 0.0)


def _budget_points(account: Account, unit: float) -> Iterator[Point]:
    """By the way to choose that scores allow; by majority without."""
    ways = {budget.choice for budget in account.budgets}
    way = "best" if "best" in ways else "majority"
    for budget in account.budgets:
        if budget.choice == way:
            yield _budget_point(account, budget, unit)


def _budget_point(account: Account, budget: Budget, unit: float) -> Point:
    compute = max(budget.cost.total_flops / budget.answered / unit, 1e-6)
    return Point(
        f"{account.strategy}, first {budget.n} by {budget.choice}", "other", compute, budget.accuracy
    )


def _thresholds(runs: Sequence[StrategyRun]) -> list[list[int]]:
    """Places of strategies that differ in the threshold alone, by threshold; single ones left out."""
    groups: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for i, run in enumerate(runs):
        record = next((record for sample in run.samples for record in sample.records), None)
        if record is None or kind_of(run) != "mixed":
            continue
        settings = {key: value for key, value in record.settings.items() if key not in OF_TIME}
        threshold = settings.pop("threshold", None)
        if isinstance(threshold, int | float):
            groups[f"{record.strategy} {sorted(map(str, settings.items()))}"].append((float(threshold), i))
    return [[i for _, i in sorted(group)] for group in groups.values() if len(group) > 1]


def _chord(points: Iterable[Point], x: Scale, y: Scale) -> str:
    ends = {point.name: point for point in points if point.name in ("draft", "target")}
    if len(ends) < 2:
        return ""
    start, end = ends["draft"], ends["target"]
    shares = [i / PIECES for i in range(PIECES + 1)]
    path = [
        (
            start.compute + share * (end.compute - start.compute),
            start.accuracy + share * (end.accuracy - start.accuracy),
        )
        for share in shares
    ]
    return _path([(x(compute), y(accuracy)) for compute, accuracy in path], "chord")


def _line(curve: Iterable[Point], css: str, x: Scale, y: Scale) -> str:
    return _path([(x(point.compute), y(point.accuracy)) for point in curve], css)


def _path(places: Iterable[tuple[float, float]], css: str) -> str:
    return f'<polyline class="{css}" points="{" ".join(f"{h:.1f},{v:.1f}" for h, v in places)}"/>'


def _dot(point: Point, x: Scale, y: Scale, *, small: bool) -> str:
    h, v = x(point.compute), y(point.accuracy)
    error = ""
    if point.stderr:
        top, bottom = (
            y(min(y.high, point.accuracy + point.stderr)),
            y(max(y.low, point.accuracy - point.stderr)),
        )
        error = f'<path class="error {point.kind}" d="M{h:.1f} {top:.1f}V{bottom:.1f}"/>'
    radius = 2.5 if small else 5.5
    return (
        f"<g><title>{escape(point.told)}</title>{error}"
        f'<circle class="dot {point.kind}" cx="{h:.1f}" cy="{v:.1f}" r="{radius}"/></g>'
    )


def _labels(points: Sequence[Point], x: Scale, y: Scale, frame: Frame) -> list[str]:
    """Names beside their points where there is room; what has none is named in the table and when pointed at."""
    taken = [_around(x(point.compute), y(point.accuracy)) for point in points]
    drawn = []
    for point in points:
        h, v = x(point.compute), y(point.accuracy)
        box = next((box for box in _places(point.name, h, v) if _is_free(box, taken, frame)), None)
        if box:
            taken.append(box)
            drawn.append(
                f'<text class="name" x="{box.left:.1f}" y="{box.bottom - 3:.1f}">{escape(point.name)}</text>'
            )
    return drawn


def _around(h: float, v: float) -> Box:
    return Box(h - 6, v - 6, h + 6, v + 6)


def _places(name: str, h: float, v: float) -> Iterator[Box]:
    width = LETTER * len(name)
    for left, top in (
        (h + 9, v - LINE / 2),
        (h - 9 - width, v - LINE / 2),
        (h + 6, v - 8 - LINE),
        (h + 6, v + 8),
        (h - 6 - width, v - 8 - LINE),
        (h - 6 - width, v + 8),
        (h - width / 2, v - 11 - LINE),
        (h - width / 2, v + 11),
    ):
        yield Box(left, top, left + width, top + LINE)


def _is_free(box: Box, taken: Sequence[Box], frame: Frame) -> bool:
    inside = frame.left < box.left and box.right < frame.width and box.top > 0 and box.bottom < frame.floor
    return inside and not any(box.meets(other) for other in taken)
