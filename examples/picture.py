"""An SVG picture of a real run, from the record that `rsd ask --trace` wrote.

    rsd ask "What is 12 x 12?" --trace run.jsonl
    python examples/picture.py run.jsonl picture.svg

The last record of the file is shown as `rsd ask` shows it on a terminal.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from rsd_cli.decoding.events import Ended, Kept
from rsd_cli.display.answer import print_answer
from rsd_cli.display.ask import AskDisplay
from rsd_cli.records import Flops, ModelId, Record, Rejected, RoleTime, Step, Timings, Usage


def read_record(line: str) -> Record:
    """The record of one line of a trace."""
    data = json.loads(line)
    times = data.pop("timings")
    roles = {role: RoleTime(**times.pop(role)) for role in data["usage"]}
    data["flops"].pop("total")
    return Record(
        **data
        | {
            "steps": tuple(read_step(step) for step in data["steps"]),
            "usage": {role: Usage(**usage) for role, usage in data["usage"].items()},
            "flops": Flops(**data["flops"]),
            "timings": Timings(**times, roles=roles),
            "models": {role: ModelId(**model) for role, model in data["models"].items()},
        }
    )


def read_step(step: dict[str, Any]) -> Step:
    """A step with the draft step that it replaced, if any."""
    rejected = step.pop("rejected", None)
    return Step(**step, rejected=Rejected(**rejected) if rejected else None)


def draw(record: Record, width: int) -> str:
    """The run as SVG."""
    console = Console(
        record=True, file=io.StringIO(), force_terminal=True, width=width, color_system="truecolor"
    )
    names = {role: model.name for role, model in record.models.items()}
    if record.strategy == "rsd":
        names["prm"] = record.settings["prm"]
    with AskDisplay(console, record.question, names, record.strategy, time.monotonic) as display:
        for step in record.steps:
            display.handle(Kept(record.id, step))
        display.handle(Ended(record.id, record))
    print_answer(console, record)
    return console.export_svg(title="rsd ask")


def main() -> None:
    """Read the last record, write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trace", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=100)
    args = parser.parse_args()
    lines = args.trace.read_text(encoding="utf-8").splitlines()
    args.picture.write_text(draw(read_record(lines[-1]), args.width), encoding="utf-8")


if __name__ == "__main__":
    main()
