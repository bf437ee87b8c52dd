"""A reward model as it is described, before anything of it is loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LOGITS = frozenset({"judge", "marker", "genprm-direct"})


@dataclass(frozen=True)
class PrmSpec:
    """Name, family, and what the family needs; `head` is a file that is there."""

    name: str
    family: str
    layout: str = ""
    head: Path | None = None
    separator: str = ""

    @property
    def reads_logits(self) -> bool:
        """Whether a reward is a share between a few logits, which rounding moves more than it moves a head."""
        return self.family in LOGITS

    @property
    def identity(self) -> str:
        """What rewards depend on besides the models: the family, how it lays a solution out, and the very head."""
        layout = f", {self.layout}" if self.layout else ""
        separator = f", separator {self.separator!r}" if self.separator else ""
        head = f", head {hashlib.sha256(self.head.read_bytes()).hexdigest()[:16]}" if self.head else ""
        return f"{self.name} ({self.family}{layout}{separator}{head})"
