r"""The final answer within a text: the last \boxed{...}, as the paper's prompt asks for. Grades nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 4_000  # characters of an answer
BOXED = re.compile(r"\\f?boxed\s*\{")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped one is none


def without_thinking(text: str) -> str:
    """A text's part that is not thinking; a thinking part that never ends hides what stands behind its beginning."""
    return text.rsplit("</think>", 1)[-1].split("<think>", 1)[0]


def final_answer(text: str) -> str | None:
    r"""Content of the last complete \boxed{...} of what is not thinking, None if there is none.

    An empty one counts only where all are: the prompt's own may be quoted.
    """
    said = without_thinking(text)
    boxes = {match.end() for match in BOXED.finditer(said)}
    complete = sorted(
        (start, end) for start, end in _braced(said) if start in boxes and end - start <= LONGEST
    )
    contents = (said[start:end].strip() for start, end in reversed(complete))
    return next((content for content in contents if content), "" if complete else None)


def _braced(text: str) -> Iterator[tuple[int, int]]:
    """Where what stands between a brace and its partner begins and ends; in one pass, however many are open."""
    opened: list[int] = []
    for match in BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.end())
        elif match[0] == "}" and opened:
            yield opened.pop(), match.start()
