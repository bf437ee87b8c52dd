"""What a name may look like, the nearest known one for a name that is not known, and how numbers are written.

Does no look-ups.
"""

from __future__ import annotations

import difflib
import re
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Windows opens a device for these, whatever their suffix.
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
SHARD = re.compile(r"(?P<stem>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf")
RULE = "a name has letters, digits, '.', '_' and '-', starts with a letter or digit and has at most 100"


def is_valid_name(name: str) -> bool:
    """Whether a name is safe as a word on the command line and in a file name on every system."""
    return bool(NAME.fullmatch(name)) and not RESERVED.fullmatch(name)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    folded = {candidate.casefold(): candidate for candidate in known}
    matches = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """'did you mean X?', or the list of what there is."""
    words = list(known)
    match = nearest(word, words)
    if match:
        return f"did you mean {match!r}?"
    return f"known are: {', '.join(words)}" if words else ""


def size_text(size: int) -> str:
    """Bytes for people, decimal as download pages show them: 491 MB."""
    if size < 1000:
        return f"{size} bytes"
    value, unit = float(size), "bytes"
    for unit in ("kB", "MB", "GB", "TB"):  # noqa: B007
        value /= 1000
        if value < 999.5:
            break
    return f"{value:.3g} {unit}" if value < 99.95 else f"{value:.0f} {unit}"


def total_size(sizes: Iterable[int | None]) -> int | None:
    """The sum of bytes; None if one is not known."""
    known = list(sizes)
    return None if None in known else sum(size or 0 for size in known)


def number_text(number: float) -> str:
    """A number in all its digits and without an exponent, which not every reader of YAML takes for a number."""
    return format(Decimal(repr(float(number))), "f").removesuffix(".0")


def shard_names(path: str) -> list[str]:
    """The names of all files of the split model that one file belongs to."""
    match = SHARD.fullmatch(path)
    if not match:
        return [path]
    count = min(int(match["count"]), 1000)
    return [f"{match['stem']}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]
