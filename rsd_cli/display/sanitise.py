"""Makes control and invisible characters visible. Decides character by character, so chunks need no state.

Only for what a terminal shows; files and records get the text as it is.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f"  # C0 without \t and \n
    "\x7f-\x9f"  # DEL, C1
    "\u200b-\u200f\ufeff"  # zero width, marks of direction
    "\u202a-\u202e\u2066-\u2069"  # overrides and isolates of direction
    "\ud800-\udfff"  # half a character, which no terminal can be sent
    "]"
)


def visible(text: str) -> str:
    r"""Write what a terminal would obey or hide as an escape, such as `\x1b` or `\u202e`."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
