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
MINUS = re.compile("[\u2212\u2013]")
FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
DOLLARS = re.compile(r"\\?\$")
SAME = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (MINUS, "-"),
        ("\uff0c", ","),
        ("\u00d7", r"\\times "),
        ("\u03c0", r"\\pi "),
        ("\u221e", r"\\infty "),
        ("\u00bd", " 1/2"),
        ("\u00bc", " 1/4"),
        ("\u00be", " 3/4"),
        ("\u00b2", "^2"),
        ("\u00b3", "^3"),
        (r"\u221a\s*(?:(\d+|[a-z])|\(([^()]*)\))", r"\\sqrt{\1\2}"),
        (FRACTION, r"\\frac"),
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\s*\.?", ""),
        (r"\\(?:leqslant|leq)(?![a-zA-Z])", r"\\le"),
        (r"\\(?:geqslant|geq)(?![a-zA-Z])", r"\\ge"),
        (r"\\neq(?![a-zA-Z])", r"\\ne"),
        ("\u2264", r"\\le "),
        ("\u2265", r"\\ge "),
        (r"\\(?:text(?:bf|it|rm|normal|sf)|mathrm|mbox|hbox)\s*\{", r"\\text{"),
        (r",\\!\s*(?=\d)|\{,\}(?=\d)", ""),  # thousands, as mathematicians write them
        (r"(?<=\d)\\,(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\!", ""),
        (r"(?<!\\)\\[,;:> ]|\\q?quad(?![a-zA-Z])|~|\u00a0", " "),
        (r"\\\$", ""),
        (r"\$", ""),
        (r"\\%", "%"),
        (r"\\(?:mathbf|boldsymbol|bm)\s*\{([^{}a-zA-Z\\]*)\}", r"\1"),  # a number; in letters it is a vector
        (r"\\(?:mid|vert)(?![a-zA-Z])", "|"),
        (r"_\s*\{\s*\\(max|min|odot)\s*\}", r"_{\1}"),  # an index by name
        (r"\s+", " "),
    )
)
UNIT = re.compile(r"(?:\s*\\text\s*\{(?!\s*i\s*\})[^{}]*\}(?:\s*\^\s*(?:\{-?\d\}|\d))?)+$")
DEGREES = re.compile(r"\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\u00b0|\\degree(?![a-zA-Z]))\s*(?=$|,|\\text)")
CONDITION = re.compile(r"\\\{ ?[a-z] ?(?:\\in ?(?:\\mathbb ?\{R\}|R) ?)?[|:] ?([^,{}]*)\\\}")
READABLE = (
    (re.compile(r"np\.((?:arc)?(?:sin|cos|tan)|sqrt|pi|exp|log)(?![a-z])"), r"\\\1"),
    (re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?!\d)"), r"\1 \\times 10^{\2}"),
    (re.compile(r"\\frac ?\{ ?d ?([A-Za-z]) ?\} ?\{ ?d ?([A-Za-z]) ?\}"), r"D_{\1\2}"),
)
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
    """The one notation without spaces but those between digits: what can be compared as text."""
    return re.sub(r"(?<!\d) | (?!\d)", "", plain(text))


def in_text(text: str) -> str:
    """A running text with its signs, fractions and amounts in the one notation."""
    return DOLLARS.sub("", FRACTION.sub(r"\\frac", MINUS.sub("-", text)))


def formula(text: str) -> str:
    r"""What math-verify can read: a set by its condition alone, numpy's names and scientific numbers as LaTeX.

    A derivative becomes a symbol, since sympy takes the derivative of one symbol by another for 0.
    """
    text = CONDITION.sub(r"\1", plain(text))
    for pattern, replacement in READABLE:
        text = pattern.sub(replacement, text)
    return text


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
    """Without what only says that it is maths or the answer, however often."""
    match: re.Match[str] | None
    while True:
        bare = text.removesuffix(".").strip()
        match = next((found for found in (pattern.fullmatch(bare) for pattern in WRAPPED) if found), None)
        if match is None:
            return text
        text = match[1].strip()
