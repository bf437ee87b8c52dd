r"""The final answer within a text: the last \boxed{...}, as the paper's prompt asks for. Grades nothing."""

from __future__ import annotations

import re

LONGEST = 4_000  # characters before the end in which an answer is looked for
BOXED = re.compile(r"\\f?boxed\s*\{")


def visible(text: str) -> str:
    """What is not thinking; a thinking part that never ends hides what stands behind its beginning."""
    return text.rsplit("</think>", 1)[-1].split("<think>", 1)[0]


def final_answer(text: str) -> str | None:
    r"""Content of the last complete \boxed{...} of what is not thinking; None if there is none."""
    said = visible(text)[-LONGEST:]
    for match in reversed(list(BOXED.finditer(said))):
        content = _braced(said, match.end())
        if content is not None:
            return content.strip()
    return None


def _braced(text: str, start: int) -> str | None:
    """What stands between an opened brace and its partner."""
    depth, i = 1, start
    while i < len(text):
        if text[i] == "\\":
            i += 1  # an escaped brace is no brace
        elif text[i] in "{}":
            depth += 1 if text[i] == "{" else -1
            if depth == 0:
                return text[start:i]
        i += 1
    return None
