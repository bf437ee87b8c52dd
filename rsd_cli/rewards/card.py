"""The model card of a trained head: what it was made from, and how good it is, in Markdown. Measures nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.rewards.quality import Bin
    from rsd_cli.rewards.starter import Figures

WIDTH = 30  # characters of a bar


@dataclass(frozen=True)
class Variant:
    """Another set of inputs, and what it gave on the same held-out steps."""

    name: str
    figures: tuple[Figures, ...]


def model_card(
    title: str, facts: dict[str, str], held_out: Sequence[Figures], variants: Sequence[Variant]
) -> str:
    """The whole card; `title` is its first line."""
    parts = [
        title,
        "A head on the hidden states of its base model: the probability that a solution can still reach the right "
        "answer from behind the newest step. `rsd prm train` made it; the same `command` makes it again.",
        _facts(facts),
        "## On held-out problems",
        _table(held_out),
        *(_diagram(figures) for figures in held_out),
        "## Other inputs",
        _variants(variants),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(facts: dict[str, str]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in facts.items())


def _table(rows: Sequence[Figures]) -> str:
    lines = [
        "| labels | steps | problems | good | AUC | calibration error |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.label} | {row.steps:,} | {row.problems} | {row.good:.0%} | {row.auc:.3f} "
        f"| {row.calibration_error:.3f} |"
        for row in rows
    ]
    return "\n".join(lines)


def _diagram(figures: Figures) -> str:
    """Reward against the share of good steps, a line for each tenth of the steps."""
    lines = [_bar(part) for part in figures.diagram]
    return (
        f"Reliability by {figures.label} (reward, share that is good):\n\n```\n" + "\n".join(lines) + "\n```"
    )


def _bar(part: Bin) -> str:
    return f"{part.reward:.2f}  {part.good:.2f}  {'#' * round(part.good * WIDTH)}"


def _variants(variants: Sequence[Variant]) -> str:
    lines = ["| inputs | labels | AUC | calibration error |", "|---|---|---|---|"]
    lines += [
        f"| {variant.name} | {row.label} | {row.auc:.3f} | {row.calibration_error:.3f} |"
        for variant in variants
        for row in variant.figures
    ]
    return "\n".join(lines)
