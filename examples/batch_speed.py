"""How fast `rsd batch` is: rows a second at several --parallel, and against what llama.cpp could do at best.

    python examples/batch_speed.py QUESTIONS.jsonl --rows 64 --parallel 1,16,32 --max-tokens 320
    python examples/batch_speed.py QUESTIONS.jsonl --rows 64 --parallel 1r,48r,48    # r: with --reproducible

Every run answers the same rows with the command itself. The ideal takes each run's own token counts at the speeds of
bare `llama_decode` loops in the same minutes, each at the number of rows that suits it best: prompts at the
prompt's speed, generated tokens at the decode's, the three models one after the other, and nothing else. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsd_cli.cli import setup
from rsd_cli.engine.context import ContextOptions
from rsd_cli.engine.llama import Model
from rsd_cli.engine.seats import Engine
from rsd_cli.evaluation.speed import Effort, Speed, measure_speed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rsd_cli.records import Role

ROWS = (8, 16, 32)  # of one decode, of which the best counts
EFFORT = Effort(rounds=2, prompt_tokens=256, write_tokens=24)


def answered(args: argparse.Namespace, questions: Path, run: str) -> dict[str, Any]:
    """The summary of one run of the command."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        command = [
            *(sys.executable, "-m", "rsd_cli", "batch", str(questions), "-o", str(place / "answers.jsonl")),
            *("--trio", args.trio, "--parallel", run.removesuffix("r"), "--max-tokens", str(args.max_tokens)),
            *(["--reproducible"] if run.endswith("r") else []),
            *("--summary", str(place / "summary.json"), "--offline"),
        ]
        subprocess.run(command, check=True)
        summary: dict[str, Any] = json.loads((place / "summary.json").read_text())
    return summary


def bare(path: Path) -> dict[str, float]:
    """A model's best bare speeds in tokens a second: one prompt after the other, and decodes of several rows."""
    speeds: list[Speed] = []
    model = Model(path)
    for n in ROWS:
        engine = Engine(model, ContextOptions(n_ctx=512, n_seats=n, forgets=True))
        speeds.append(measure_speed(engine, n, EFFORT))
        engine.close()
    model.close()
    return {
        "prompt": max(speed.bare_prompt for speed in speeds),
        "decode": max(speed.bare_decode for speed in speeds),
        "rows": max(speeds, key=lambda speed: speed.bare_decode).seats,
    }


def ideal_seconds(summary: dict[str, Any], speeds: Mapping[Role, Mapping[str, float]]) -> float:
    """The run's tokens at bare speeds."""
    tokens: dict[str, dict[str, int]] = summary["tokens"]
    return sum(
        tokens[role]["fed"] / speed["prompt"] + tokens[role]["generated"] / speed["decode"]
        for role, speed in speeds.items()
        if role in tokens
    )


def main() -> None:
    """Bare speeds, the runs, bare speeds again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument(
        "--parallel", default="1,16,32", help="numbers of rows in flight, with an r: reproducibly"
    )
    parser.add_argument("--trio", default="starter")
    parser.add_argument("--max-tokens", type=int, default=320)
    args = parser.parse_args()
    found = setup.find(setup.Choice(args.trio), setup.Access(), ("draft", "prm", "target")).trio
    before = {role: bare(model.path) for role, model in found.models.items()}
    lines = args.questions.read_bytes().splitlines(keepends=True)[: args.rows]
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.writelines(lines)
        file.flush()
        runs = {run: answered(args, Path(file.name), run) for run in args.parallel.split(",")}
    after = {role: bare(model.path) for role, model in found.models.items()}
    speeds = {
        role: {key: (before[role][key] + after[role][key]) / 2 for key in ("prompt", "decode")}
        for role in before
    }
    first = next(iter(runs.values()))
    results = []
    for run, summary in runs.items():
        gain = summary["rows_per_second"] / first["rows_per_second"]
        share = ideal_seconds(summary, speeds) / summary["seconds"]
        results.append({"parallel": run, "gain": gain, "share_of_ideal": share, "summary": summary})
        print(
            f"--parallel {run:3}  {summary['rows_per_second']:.3f} rows/s  x {gain:.2f}  {share:.2f} of the ideal"
        )
    print(json.dumps({"rows": len(lines), "bare": {"before": before, "after": after}, "runs": results}))


if __name__ == "__main__":
    main()
