"""Where the commands of `rsd prm` may write: never over what is not their own. Asked before any work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rsd_cli.errors import UsageError
from rsd_cli.registry.files import head_beside, kind_at

if TYPE_CHECKING:
    from pathlib import Path

    from rsd_cli.registry.hubfiles import HubFiles
    from rsd_cli.rewards.checkpoints import LocalFiles


def check_head_place(output: Path, read: LocalFiles | HubFiles | None = None) -> None:
    """Refuse a head's place that is no file's or another file's, or of weights in a directory that is `read`."""
    from rsd_cli.rewards.checkpoints import INDICES, WHOLE, LocalFiles
    from rsd_cli.rewards.heads import is_head

    _check_folder(output)
    kind = kind_at(output)
    if kind in {"folder", "other"}:
        told = "a folder" if kind == "folder" else "no regular file"
        raise UsageError(f"{output} can't be written: it is {told}.", "Name another -o FILE.")
    if kind and not is_head(output):
        raise UsageError(f"{output} is there, and is no head.", "Name another -o FILE.")
    inside = isinstance(read, LocalFiles) and output.parent.samefile(read.directory)
    if inside and output.name in {*INDICES, *WHOLE}:
        raise UsageError(f"{output} would be taken for the checkpoint's weights.", "Name another -o FILE.")


def check_gguf_place(output: Path) -> None:
    """Refuse a GGUF's place that any file has: the base itself, say. A head beside it may be replaced."""
    _check_folder(output)
    if kind_at(output):
        raise UsageError(f"{output} is there already.", "Name another -o FILE.")
    check_head_place(head_beside(output))


def _check_folder(output: Path) -> None:
    if kind_at(output.parent) != "folder":
        raise UsageError(f"{output.parent} is no folder.", "Name a file in a folder that exists.")
    if not os.access(output.parent, os.W_OK):  # also where the file is there: another one takes its place
        raise UsageError(f"{output.parent} can't be written to.", "Name a file in a folder of yours.")
