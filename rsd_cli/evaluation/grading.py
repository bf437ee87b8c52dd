r"""Is a final answer the gold one, by quick rules? Numbers as numbers, all else as text in one notation.

It knows no algebra: \frac{1}{2} and 0.5 are the same, x+1 and 1+x are not. `grader` goes on where this ends.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

from rsd_cli.evaluation import notation

if TYPE_CHECKING:
    from collections.abc import Sequence

NUMERAL = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d*)?|(?<![A-Za-z])\.\d+)"
UNSIGNED = rf"{NUMERAL}(?:[eE][+-]?\d{{1,3}}(?!\d)|/\d+)?"
NUMBER = re.compile(rf"-?{UNSIGNED}")
IN_TEXT = re.compile(  # 10-15 has no sign, 1 3/4 is one number
    rf"(?:(?<![\w)])-)?(?:\d{{1,3}} (?=\d+/\d))?{UNSIGNED}(?:\s?\\?%)?"
)
SCIENTIFIC = re.compile(
    rf"(-?{NUMERAL})\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{{\s*(-?\d{{1,3}})\s*\}}|(-?\d))"
)
FRACTION = re.compile(r"\\frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
MIXED = re.compile(r"(-?)(\d+)(?: | ?\+ ?)(\d+)/(\d+)")  # 1 2/3
SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d.,])")  # 10 080
NAMED = re.compile(r"^[A-Za-z] ?= ?")  # x = 3 is 3
AS_TEXT = re.compile(r"^\\text ?\{ ?([-+]?\.?\d[^{}]*)\}$")  # \text{18 dollars}, but not \text{May 18}
BRACKETED = re.compile(rf"\(\s*(-?{UNSIGNED})\s*\)")
UNITS = (
    r"(?:[cdkm]m|[km]g|[cdm][lL]|m/s|in|ft|yd|mi|oz|lbs?|hrs?|min|sec|mph|kph|[ap]m|st|nd|rd|th)(?![A-Za-z])"
)
FUNCTIONS = r"(?:sqrt|ln|log|exp|sin|cos|tan|pi)(?![a-z])"
UNIT_BEHIND = re.compile(  # eggs/day, cm^2, (dollars); letters of a product are fewer
    rf"(?<=\d)(?:(?: \(?(?!{FUNCTIONS})[A-Za-z]{{3,}}\)?| ?{UNITS})(?: ?/ ?[A-Za-z]+)?(?: ?\^ ?\{{?\d\}}?)?"
    r"|/ ?(?:[A-Za-z]{3,}|hr|lb|kg))(?: [A-Za-z]{2,})*$"
)
# What makes more of a number, which is 0 here, than a number with its unit: 0ab is a product, 0cm and 0eggs are not.
TERM = re.compile(
    r"[-+*/^=_!\\();|<>≈≠√∛∜⁰¹⁴-⁹⅓⅔⅛]|0[a-z]$"
    rf"|0(?!{UNITS})[A-Za-z]{{1,3}}(?![A-Za-z])|(?<![A-Za-z]){FUNCTIONS}"
)
DENIED = re.compile(r"\b(?:not|never|wrong|incorrect)\b|n't\b", re.IGNORECASE)
LONGEST = 200  # characters of an answer that can be a number with its unit


def last_number(text: str) -> str | None:
    """The last number of a text that has no box, with its percent sign."""
    numbers = IN_TEXT.findall(FRACTION.sub(_fraction, notation.in_text(text)))
    return numbers[-1].rstrip(".") if numbers else None


def same_answer(given: str, gold: str) -> bool:
    """Whether two final answers are the same number, or the same text."""
    number, wanted = as_number(given), as_number(gold)
    if number is not None and wanted is not None:
        return number == wanted
    return bool(given.strip()) and same_text(given, gold)


def alike(answers: Sequence[str | None]) -> list[list[int]]:
    """The places of answers that are the same, together, in the order in which they came up; None is no answer."""
    groups: dict[str, list[int]] = {}
    for place, answer in enumerate(answers):
        if answer is not None:
            first = next((other for other in groups if same_answer(answer, other)), answer)
            groups.setdefault(first, []).append(place)
    return list(groups.values())


def same_text(given: str, gold: str) -> bool:
    r"""Whether two answers are written alike, or are the same words: `\text{A}` and A."""
    if denies(given) != denies(gold):
        return False
    if notation.is_words(gold):
        return notation.spelled(given) == notation.spelled(gold)
    return notation.compact(given) == notation.compact(gold)


def as_number(text: str) -> Fraction | None:
    """The one number that a short answer names, with its unit and thousands separators left out."""
    if len(text) > LONGEST or denies(text):
        return None
    short = NAMED.sub("", notation.plain(text)).replace("%", "")
    short = AS_TEXT.sub(r"\1", short)
    short = SCIENTIFIC.sub(_scientific, notation.TEXT.sub(" ; ", short)).strip(" ;")
    short = FRACTION.sub(_fraction, re.sub(r"^([-+]) ", r"\1", short).removeprefix("+"))
    short = UNIT_BEHIND.sub("", BRACKETED.sub(r"\1", short) if BRACKETED.fullmatch(short) else short)
    mixed = MIXED.fullmatch(short)
    if mixed:
        return _mixed(*mixed.groups())
    short = SPACED.sub(lambda match: match[0].replace(" ", ""), short)
    found = NUMBER.findall(short)
    if len(found) != 1 or TERM.search(NUMBER.sub("0", short)):
        return None
    return _exact(found[0])


def denies(text: str) -> bool:
    """Whether an answer says of something that it is not the answer: not 72, 72 is wrong."""
    return bool(DENIED.search(text))


def gsm8k_gold(answer: str) -> str:
    """The gold answer of a GSM8K row stands behind its last ####."""
    return answer.rsplit("####", 1)[-1].strip()


def _exact(number: str) -> Fraction | None:
    try:
        return Fraction(number.replace(",", "").replace("./", "/"))
    except (ValueError, ZeroDivisionError):
        return None


def _scientific(match: re.Match[str]) -> str:
    return f"{match[1].rstrip('.')}e{match[2] or match[3]}"


def _fraction(match: re.Match[str]) -> str:
    r"""`\frac{1}{2}` as 1/2; behind a whole number it makes a mixed one, so a space keeps them apart."""
    glued = match.start() > 0 and match.string[match.start() - 1].isdigit()
    return f"{' ' if glued else ''}{match[1] or match[2]}/{match[3] or match[4]}"


def _mixed(sign: str, whole: str, upper: str, lower: str) -> Fraction | None:
    if not int(lower):
        return None
    value = int(whole) + Fraction(int(upper), int(lower))
    return -value if sign else value
