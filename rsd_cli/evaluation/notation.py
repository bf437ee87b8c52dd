r"""One notation for answers: LaTeX that means the same is written the same way. Decides nothing about equality.

Only what is the same in every context is rewritten: \dfrac and \frac, \leq and \le, dressing such as $…$ or
\left, spaces, a unit behind a value. What needs algebra is left to the maths worker.
"""

from __future__ import annotations

import re

WRAPPED = (
    re.compile(r"\$\$(.*)\$\$", re.DOTALL),
    re.compile(r"\$([^$]*)\$", re.DOTALL),
    re.compile(r"\\\((.*)\\\)", re.DOTALL),
    re.compile(r"\\\[(.*)\\\]", re.DOTALL),
    re.compile(r"\\f?boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}", re.DOTALL),
)
SAME = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("[\u2212\u2013]", "-"),
        ("\uff0c", ","),
        ("\u00d7", r"\\times "),
        ("\u03c0", r"\\pi "),
        ("\u221e", r"\\infty "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\s*\.?", ""),
        (r"\\(?:leqslant|leq)(?![a-zA-Z])", r"\\le"),
        (r"\\(?:geqslant|geq)(?![a-zA-Z])", r"\\ge"),
        (r"\\neq(?![a-zA-Z])", r"\\ne"),
        ("\u2264", r"\\le "),
        ("\u2265", r"\\ge "),
        (r"\\(?:text(?:bf|it|rm|normal|sf)|mathrm|mbox|hbox)\s*\{", r"\\text{"),
        (r",\\!\s*(?=\d)|\{,\}(?=\d)", ""),  # thousands, as mathematicians write them
        (r"(?<=\d)\\,(?=\d{3}(?!\d))", ""),
        (r"\\!", ""),
        (r"\\[,;:> ]|\\q?quad(?![a-zA-Z])|~|\u00a0", " "),
        (r"\\\$", ""),
        (r"\$", ""),
        (r"\\%", "%"),
        (r"\\(?:mid|vert)(?![a-zA-Z])", "|"),
        (r"\s+", " "),
    )
)
UNIT = re.compile(r"(?:\s*\\text\s*\{(?!\s*i\s*\})[^{}]*\}(?:\s*\^\s*(?:\{-?\d\}|\d))?)+$")
DEGREES = re.compile(r"\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\u00b0|\\degree(?![a-zA-Z]))\s*(?=$|,|\\text)")
TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
WORD = re.compile(r"[A-Za-z]{4,}")
OPERATOR = re.compile(r"[\d^_=+*/|<>\\{}]")
ONE_LETTER = re.compile(r"[A-Za-z]")


def plain(text: str) -> str:
    """The answer in one notation, without dressing and without the unit behind it."""
    text = _unwrapped(text.strip())
    for pattern, replacement in SAME:
        text = pattern.sub(replacement, text)
    text = DEGREES.sub("", text.strip().removesuffix(".").strip())
    value = UNIT.sub("", text).strip()
    return DEGREES.sub("", value) or text


def compact(text: str) -> str:
    """The one notation without spaces: what can be compared as text."""
    return plain(text).replace(" ", "")


def is_words(text: str) -> bool:
    r"""Whether an answer is text and no formula: `\text{East}`, `(C)`, `no solution`, but not `ab` or `\sin x`.

    Letters of a product are no words, so a bare answer needs four in a row and no operator.
    """
    shown = plain(text)
    if ONE_LETTER.fullmatch(shown):
        return False
    if TEXT.search(shown) and not TEXT.sub("", shown).strip("() .,"):
        return True
    return bool(WORD.search(shown)) and not OPERATOR.search(shown)


def spelled(text: str) -> str:
    r"""The letters and digits of an answer that is text, folded: `\text{(C)}` and `C` are both "c"."""
    return " ".join(re.findall(r"[a-z0-9]+", TEXT.sub(r" \1 ", plain(text)).lower()))


def _unwrapped(text: str) -> str:
    """Without what only says that it is maths or the answer."""
    for pattern in WRAPPED:
        match = pattern.fullmatch(text.removesuffix(".").strip())
        if match:
            return _unwrapped(match[1].strip())
    return text
