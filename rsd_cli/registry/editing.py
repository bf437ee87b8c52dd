"""Writes a trio's threshold into the user's models.yaml; everything else in the file stays as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rsd_cli.errors import UsageError
from rsd_cli.registry.files import user_file
from rsd_cli.registry.strictyaml import read

if TYPE_CHECKING:
    from pathlib import Path

    from rsd_cli.registry.entries import TrioEntry


def set_threshold(trio: TrioEntry, threshold: float, path: Path | None = None) -> Path:
    """Change the trio's threshold in the file, or add the trio to it; gives the file's path."""
    path = path or user_file()
    text = path.read_text("utf-8") if path.is_file() else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(_edited(text, path, trio, threshold), "utf-8")
    fresh.replace(path)
    return path


def _edited(text: str, path: Path, trio: TrioEntry, threshold: float) -> str:
    document = read(path) if text.strip() else None
    trios = (document.data.get("trios") or {}) if document else {}
    if document and trio.name in trios:
        place = document.place(("trios", trio.name, "threshold"))
        lines = text.splitlines(keepends=True)
        start = place.column - 1
        line = lines[place.line - 1]
        if not place.spelling or not line[start:].startswith(place.spelling):
            raise UsageError(f"{document.at(('trios', trio.name))}: the threshold can't be changed in place.")
        lines[place.line - 1] = f"{line[:start]}{threshold:g}{line[start + len(place.spelling) :]}"
        return "".join(lines)
    entry = _entry(trio, threshold)
    if document and "trios" in document.data:
        lines = text.splitlines(keepends=True)
        head = next(i for i, line in enumerate(lines) if line.startswith("trios:"))
        return "".join([*lines[: head + 1], entry, *lines[head + 1 :]])
    return f"{text.rstrip()}\n\ntrios:\n{entry}".lstrip()


def _entry(trio: TrioEntry, threshold: float) -> str:
    fields = {
        "draft": trio.draft,
        "target": trio.target,
        "prm": trio.prm,
        "threshold": f"{threshold:g}",
        "use_for": json.dumps(trio.use_for, ensure_ascii=False),
    }
    return f"  {trio.name}:\n" + "".join(f"    {key}: {value}\n" for key, value in fields.items())
