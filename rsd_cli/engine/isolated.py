"""How the file of a worker is started: isolated, but with every package that this process finds. Starts nothing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LAUNCHER = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " runpy.run_path(sys.argv[2], run_name='__main__')"
)


def command(worker: Path, *flags: str) -> list[str]:
    """What runs the file without the environment's say, and without the current directory.

    `-I` alone would also hide packages of the user's own (pip install --user, --target), so the path is handed over.
    """
    paths = [entry for entry in sys.path if entry]  # an empty one is the current directory
    return [sys.executable, "-I", *flags, "-c", LAUNCHER, json.dumps(paths), str(worker)]
