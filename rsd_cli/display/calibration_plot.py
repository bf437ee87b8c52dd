"""A calibration as a picture, PNG or SVG by the file's ending, drawn by matplotlib. Computes nothing."""

from __future__ import annotations

from importlib.util import find_spec
from textwrap import wrap
from typing import TYPE_CHECKING

from rsd_cli.display.calibration import COMPUTE
from rsd_cli.errors import UsageError
from rsd_cli.registry.names import number_text

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from rsd_cli.display.calibration import Report

FORMATS = (".png", ".svg")
DRAFT, TARGET, REWARD = "tab:cyan", "tab:purple", "tab:green"
PANEL = (7.0, 3.2)  # inches
TITLE = 100  # characters that its width has room for


def check_matplotlib() -> None:
    """Refuse a picture before the work where its library is missing."""
    if find_spec("matplotlib") is None:
        raise UsageError("A plot needs the package matplotlib.", "pip install 'rsd-cli[plot]'")


def save_plot(path: Path, report: Report) -> None:
    """Rewards, estimates at every threshold, and where runs were graded, their accuracy beside the chord."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = [_draw_rewards, _draw_estimates, *([_draw_accuracy] if report.runs else [])]
    figure = Figure((PANEL[0], PANEL[1] * len(panels)), layout="constrained")
    figure.suptitle(_title(report), fontsize=9)
    for draw, axes in zip(panels, figure.subplots(len(panels), squeeze=False).flat, strict=True):
        draw(axes, report)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    with mpl.rc_context({"svg.fonttype": "none"}):  # words stay words: searchable, and small
        figure.savefig(path, dpi=150)


def _draw_rewards(axes: Axes, report: Report) -> None:
    known = [reward for reward in report.rewards if reward is not None]
    axes.hist(known, 20, range=(0, 1), color=DRAFT, alpha=0.8, label=f"the draft's steps ({len(known)})")
    if report.earned:
        label = f"the target's in their place ({len(report.earned)})"
        axes.hist(report.earned, 20, range=(0, 1), color=TARGET, histtype="step", lw=2, label=label)
    axes.axvline(report.threshold, color="black", ls="--", label="threshold")
    axes.set(xlabel="reward", ylabel="steps", xlim=(0, 1))


def _draw_estimates(axes: Axes, report: Report) -> None:
    thresholds = [point.threshold for point in report.points]
    shares = [100 * point.target_share for point in report.points]
    compute = [100 * point.compute for point in report.points]
    axes.plot(thresholds, shares, color=TARGET, label="tokens by the target")
    axes.plot(thresholds, compute, color="black", label=f"compute {COMPUTE}")
    axes.axvline(report.threshold, color="black", ls="--", label="threshold")
    axes.set(xlabel="threshold", ylabel="estimated, %", xlim=(0, 1), ylim=(0, None))


def _draw_accuracy(axes: Axes, report: Report) -> None:
    runs = sorted((run for run, _ in report.runs), key=lambda run: run.threshold)
    shares = [100 * run.target_share for run in runs]
    accuracies = [100 * run.accuracy for run in runs]
    ends = ([shares[0], shares[-1]], [accuracies[0], accuracies[-1]])
    axes.plot(*ends, color="gray", ls=":", label="the chord: whole questions at random")
    axes.plot(shares, accuracies, color=REWARD, marker="o", label="measured, by threshold")
    for run, share, accuracy in zip(runs, shares, accuracies, strict=True):
        axes.annotate(
            number_text(run.threshold), (share, accuracy), (4, -11), textcoords="offset points", fontsize=8
        )
    axes.set(xlabel="tokens by the target, %", ylabel="right, %")


def _title(report: Report) -> str:
    """What the report is of and what it says, in lines that fit."""
    said = (report.about, f"threshold {number_text(report.threshold)}: {report.reason}")
    return _literally("\n".join(line for each in said for line in wrap(each, TITLE)))


def _literally(text: str) -> str:
    """A dollar sign in a trio's name begins no formula."""
    return text.replace("$", r"\$")
