"""What `rsd batch` costs beside its models: resident memory and milliseconds a row, at several lengths of input.

    python examples/batch_memory.py --rows 1000,100000 --trio TRIO --strategy draft

Questions are short and made up, answers a few tokens long; a trio of tiny models keeps it short. Printed are the
peak of resident memory and the time a row that was spent outside llama.cpp; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import resource


def run(args: argparse.Namespace, n: int) -> dict[str, Any]:
    """One batch of `n` rows in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with (place / "questions.jsonl").open("w") as file:
            for i in range(n):
                file.write(json.dumps({"id": f"row-{i}", "question": f"What is {i} + 1?"}) + "\n")
        command = [
            *(sys.executable, "-m", "rsd_cli", "batch", str(place / "questions.jsonl"), "-o"),
            *(str(place / "answers.jsonl"), "--trio", args.trio, "--strategy", args.strategy, "--quiet"),
            *(
                "--max-tokens",
                "3",
                "--threads",
                "1",
                "--ctx",
                "256",
                "--summary",
                str(place / "summary.json"),
            ),
        ]
        process = subprocess.Popen(command)
        _, status, used = wait(process.pid)
        if status:
            raise SystemExit(f"rsd batch ended with {status}")
        summary = json.loads((place / "summary.json").read_text())
        lines = (place / "answers.jsonl").read_bytes().count(b"\n")
    inside = sum(spent["prompt_ms"] + spent["decode_ms"] for spent in summary["time"].values())
    return {
        "rows": n,
        "lines": lines,
        "peak_mb": used.ru_maxrss / 1000,
        "ms_a_row": (1000 * summary["seconds"] - inside) / n,
        "rows_per_second": summary["rows_per_second"],
    }


def wait(pid: int) -> tuple[int, int, resource.struct_rusage]:
    """The end of a process with what it and its children used."""
    return os.wait4(pid, 0)


def main() -> None:
    """Print a line for each length."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="1000,100000")
    parser.add_argument("--trio", default="starter")
    parser.add_argument("--strategy", default="draft")
    args = parser.parse_args()
    results = [run(args, n) for n in map(int, args.rows.split(","))]
    for result in results:
        print(
            f"{result['rows']:7,} rows  {result['peak_mb']:6.0f} MB at most  "
            f"{result['ms_a_row']:.2f} ms a row outside llama.cpp  {result['rows_per_second']:.0f} rows/s"
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
