"""Where models.yaml files and converted heads are looked for, and what is at a path. Reads none of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


Kind = Literal["file", "folder", "other"]


def kind_at(path: Path) -> Kind | None:
    """What is at a path, None where nothing is; UsageError where that can't be told.

    Path.exists and its like raise OSError in such a case, depending on Python's version.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that none can have
        return None
    except OSError as error:
        raise UsageError(f"{path} can't be looked at: {error.strerror}.", "Name another place.") from error
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "other"


def file_size(path: Path) -> int | None:
    """Bytes of a regular file; None for anything else, also for what may not be looked at or has no possible name."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # Path.is_file raises some of them, depending on Python's version
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def head_beside(gguf: Path) -> Path:
    """Where the head of a converted GGUF is."""
    return gguf.with_name(f"{gguf.stem}.head.safetensors")


def packed_file() -> Path:
    """The file that comes with the program: inside the wheel, or at the top of a source checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "models.yaml"
    return inside if inside.is_file() else package.parent / "models.yaml"


def is_packed(path: Path) -> bool:
    """Whether a path leads to the file that comes with the program."""
    return os.path.realpath(path) == os.path.realpath(packed_file())


def asked_files(models_file: Path | None) -> list[Path]:
    """The files that were asked for: of --models and of $RSD_MODELS."""
    named = os.environ.get("RSD_MODELS")
    return [path.expanduser() for path in (models_file, Path(named) if named else None) if path]


def registry_files(models_file: Path | None) -> Iterator[Path]:
    """The user's files before ours; a file that was asked for must exist; none is read twice.

    In a source checkout ./models.yaml is ours, and comes behind the user's as well.
    """
    candidates = [
        *((path, True) for path in asked_files(models_file)),
        *((path, False) for path in (Path("models.yaml"), user_file()) if not is_packed(path)),
        (packed_file(), True),
    ]
    seen: set[Path] = set()
    for path, required in candidates:
        if not required and file_size(path) is None:
            continue
        same = Path(os.path.realpath(path))  # unlike resolve(), survives a loop of links
        if same not in seen:
            seen.add(same)
            yield path


def user_file() -> Path:
    """The file in the user configuration directory, there or not."""
    from platformdirs import user_config_path

    return user_config_path("rsd") / "models.yaml"
