"""Makes control and invisible characters visible. Decides character by character, so chunks need no state.

Only for what a terminal shows; files and records get the text as it is.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f"  # C0 without \t and \n
    "\x7f-\x9f"  # DEL, C1
    "\u00ad\u180e\u200b-\u200f\u061c\ufeff"  # zero width, marks of direction
    "\u2028-\u202e"  # ends of lines and paragraphs, overrides of direction
    "\u2060-\u206f"  # joiners, invisible operators, isolates of direction, and what Unicode gave up
    "\U000e0000-\U000e007f"  # tags: ASCII that nobody sees
    "\ud800-\udfff"  # half a character, which no terminal can be sent
    "]"
)


def visible(text: str) -> str:
    r"""Write what a terminal would obey or hide as an escape, such as `\x1b` or `\u202e`."""
    return _UNSAFE.sub(_escape, text)


def visible_json(text: str) -> str:
    """Write the same characters of a JSON text as escapes of JSON's own, so that it stays the same JSON."""
    return _UNSAFE.sub(_json_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _json_escape(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
