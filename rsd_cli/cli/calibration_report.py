"""Where the report of a calibration goes: to the terminal, as JSON, into a picture. Computes nothing."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from rsd_cli.display.calibration import Report


def check_plot(path: Path) -> None:
    """Refuse before the work what could not be written behind it."""
    from rsd_cli.display.calibration_plot import FORMATS, check_matplotlib
    from rsd_cli.registry.files import kind_at

    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"--plot {path} ends neither in .png nor in .svg.",
            f"For example: --plot {path.stem or 'report'}.png",
        )
    kind = kind_at(path)
    if kind == "folder":
        raise UsageError(f"--plot {path} is a folder.", "Name a file.")
    if kind_at(path.parent) != "folder":
        raise UsageError(f"--plot {path} lies in no folder that is there.", f"Make {path.parent} first.")
    if not os.access(path if kind else path.parent, os.W_OK):
        raise UsageError(f"--plot {path} can't be written.", "Name a file in a folder of yours.")
    check_matplotlib()


def show(report: Report, *, as_json: bool, color: bool) -> None:
    """Print the report on stdout."""
    from rsd_cli.display.calibration import show_calibration
    from rsd_cli.display.consoles import stdout_console

    if as_json:
        typer.echo(_as_json(report))
    else:
        show_calibration(stdout_console(color=color), report)


def draw(path: Path, report: Report) -> None:
    """Write the report as a picture."""
    from rsd_cli.display.calibration_plot import save_plot

    try:
        save_plot(path, report)
    except OSError as error:
        raise UsageError(
            f"--plot {path} can't be written: {error.strerror}.", "Name another file."
        ) from error


def _as_json(report: Report) -> str:
    runs = [
        {
            "threshold": run.threshold,
            "target_share": run.target_share,
            "accuracy": run.accuracy,
            "above_chord": asdict(gain) if gain else None,
        }
        for run, gain in report.runs
    ]
    data = {"threshold": report.threshold, "reason": report.reason, "left_out": report.left_out, "runs": runs}
    data["draft"] = report.draft and {
        "right": sum(answer.right for answer in report.draft.answers),
        "graded": len(report.draft.answers),
        "accuracy": report.draft.accuracy,
    }
    points = [asdict(point) for point in report.points]
    data |= {"rewards": report.rewards, "earned": report.earned, "curve": points}
    return json.dumps(data, allow_nan=False)
