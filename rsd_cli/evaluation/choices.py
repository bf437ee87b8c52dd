r"""The letter that an answer to a multiple-choice question names. Knows no golds.

As the Qwen2.5-Math evaluation reads it (its last "answer is X" or "choice is X", else the last letter that stands
alone), with two departures: a \boxed{…} comes first, and a lower-case "a" in running text is no choice.
"""

from __future__ import annotations

import re

from rsd_cli.evaluation import notation

LETTERS = "ABCDEFGHIJ"
CUES = re.compile(
    r"(?i:answer|choice|option)\s*(?i:is)?\s*:?\s*(?:\*\*|\\text\s*\{|\$|\s)*\(?([A-J])(?![A-Za-z'’])"
)
ALONE = re.compile(r"(?<![A-Za-z0-9\\'’])([A-J])(?![A-Za-z0-9'’])")
HEAD = re.compile(r"\(?\s*([A-Ja-j])\s*(?:[).:]|$)")


def letter_of_box(box: str, choices: tuple[str, ...] = ()) -> str | None:
    r"""The letter in a box: `B`, `(b)`, `\text{B}`, `B. yolk sac`, `\text{(B) } 4`, or the words of one option."""
    shown = notation.TEXT.sub(r" \1 ", box.replace(r"\textbf", r"\text").replace(r"\mathrm", r"\text")).strip(
        " $.*"
    )
    head = HEAD.match(shown)
    if head:
        return head[1].upper()
    named = [i for i, choice in enumerate(choices) if _same_option(shown, choice)]
    if len(named) == 1:
        return LETTERS[named[0]]
    alone = ALONE.findall(shown)
    return alone[0] if len(set(alone)) == 1 else None


def letter_of_text(text: str) -> str | None:
    """The letter that a text without a box ends with."""
    cued = CUES.findall(text)
    alone = cued or ALONE.findall(text)
    return alone[-1] if alone else None


def _same_option(shown: str, choice: str) -> bool:
    return notation.compact(shown).casefold() == notation.compact(choice).casefold() != ""
