r"""The letter that an answer to a multiple-choice question names. Knows no golds.

As the Qwen2.5-Math evaluation reads it (its last "answer is X" or "choice is X", else the last letter that stands
alone), with departures: a \boxed{…} comes first, letters beyond the options are none, and neither a lower-case "a" in
running text nor the "I" of a sentence is a choice.
"""

from __future__ import annotations

import re

from rsd_cli.evaluation import notation

LETTERS = "ABCDEFGHIJ"
LETTER = r"([A-J])(?![A-Za-z0-9'’])(?<!I(?= [a-z]))"
DRESS = r" ?(?:\*\*|\\text ?\{|\$)* ?\(?"
SAID = re.compile(rf"(?i:answer|choice|option) ?(?:(?i:is)|:)(?: ?:)?(?i: option| choice)?{DRESS}{LETTER}")
NAMED = re.compile(rf"(?i:answer|choice|option){DRESS}{LETTER}")
ALONE = re.compile(rf"(?<![A-Za-z0-9\\'’]){LETTER}")
HEAD = re.compile(r"\(?\s*([A-Ja-j])\s*(?:[).:]|$)")


def letter_of_box(box: str, choices: tuple[str, ...] = ()) -> str | None:
    r"""The letter in a box: `B`, `(b)`, `\text{B}`, `B. yolk sac`, `\text{(B) } 4`, or the words of one option."""
    shown = notation.TEXT.sub(r" \1 ", box.replace(r"\textbf", r"\text").replace(r"\mathrm", r"\text")).strip(
        " $.*"
    )
    options = LETTERS[: len(choices) or None]
    head = HEAD.match(shown)
    if head and head[1].upper() in options:
        return head[1].upper()
    named = [i for i, choice in enumerate(choices) if _same_option(shown, choice)]
    if len(named) == 1:
        return LETTERS[named[0]]
    if head:
        return head[1].upper()
    alone = {letter for letter in ALONE.findall(shown) if letter in options}
    return alone.pop() if len(alone) == 1 else None


def letter_of_text(text: str, options: int = 0) -> str | None:
    """The letter that a text without a box names last, among so many options if that is known."""
    text = " ".join(text.split())  # the patterns would try every way to divide a long space
    for pattern in (SAID, NAMED, ALONE):
        found: list[str] = pattern.findall(text)
        letters = [letter for letter in found if letter in LETTERS[: options or None]]
        if letters:
            return letters[-1]
    return None


def _same_option(shown: str, choice: str) -> bool:
    return notation.compact(shown).casefold() == notation.compact(choice).casefold() != ""
