r"""Is a final answer the gold one? Numbers are compared as numbers, all else as normalised text.

It knows final numbers and short expressions, no algebra: \frac{1}{2} and 0.5 are the same, x+1 and 1+x are not.
"""

from __future__ import annotations

import re
from fractions import Fraction

from rsd_cli.decoding.answer import final_answer

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?|-?\.\d+")
FRACTION = re.compile(r"\\[dt]?frac\s*\{(-?\d+)\}\s*\{(\d+)\}")
DRESSING = re.compile(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}|\\[,;! ]|\\\$|[$%\s]|\\%")
NAMED = re.compile(r"^[A-Za-z]=")  # x = 3 is 3
TERM = re.compile(r"[-+*/^=_\\()]|0[a-z]$")  # what makes more of a number than a number with its unit
LONGEST = 200  # characters of an answer that can be a number with its unit


def is_right(answer: str, gold: str) -> bool:
    r"""Whether the text's last \boxed{...}, or else its last number, is the gold answer."""
    given = final_answer(answer)
    if given is None:
        numbers = NUMBER.findall(answer[-LONGEST:])
        given = numbers[-1] if numbers else ""
    return same_answer(given, gold)


def same_answer(given: str, gold: str) -> bool:
    """Whether two final answers are the same number, or the same text."""
    number, wanted = as_number(given), as_number(gold)
    if number is not None and wanted is not None:
        return number == wanted
    return bool(given.strip()) and _plain(given) == _plain(gold)


def as_number(text: str) -> Fraction | None:
    """The one number that a short answer names, with its unit and thousands separators left out."""
    short = NAMED.sub("", FRACTION.sub(r"\1/\2", _plain(text[:LONGEST])))
    found = NUMBER.findall(short)
    if len(found) != 1 or TERM.search(NUMBER.sub("0", short)):
        return None
    try:
        return Fraction(found[0].replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None


def gsm8k_gold(answer: str) -> str:
    """The gold answer of a GSM8K row stands behind its last ####."""
    return answer.rsplit("####", 1)[-1].strip()


def _plain(text: str) -> str:
    return DRESSING.sub("", text).rstrip(".").strip()
