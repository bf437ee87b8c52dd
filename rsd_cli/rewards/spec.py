"""A reward model as it is described, before anything of it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class PrmSpec:
    """Name, family, and what the family needs; `head` is a file that is there."""

    name: str
    family: str
    layout: str = ""
    head: Path | None = None
    separator: str = ""
