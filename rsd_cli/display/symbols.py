"""What a LaTeX symbol looks like in Unicode, and raised and lowered characters. Reads no LaTeX.

Most names come from pylatexenc's table, which is imported when the first unknown one is met.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MARKS = {
    "overline": "\u0305",
    "bar": "\u0305",
    "hat": "\u0302",
    "widehat": "\u0302",
    "vec": "\u20d7",
    "overrightarrow": "\u20d7",
    "dot": "\u0307",
    "tilde": "\u0303",
    "cancel": "\u0338",
}
DOUBLE_STRUCK = dict(zip("CNPQRZ", "ℂℕℙℚℝℤ", strict=True))

_OWN = {
    "leqslant": "≤",
    "geqslant": "≥",
    "ne": "≠",
    "implies": "⇒",
    "iff": "⇔",
    "gets": "←",
    "land": "∧",
    "lor": "∨",
    "neg": "¬",
    "lnot": "¬",
    "degree": "°",
    "triangle": "△",
    "checkmark": "✓",
    "cdots": "…",
    "dotsc": "…",
    "dotsb": "…",
    "colon": ":",
    "bmod": " mod ",
    "mod": " mod ",
    "gcd": "gcd",
    "lcm": "lcm",
    "quad": "  ",
    "qquad": "  ",
    "lbrace": "{",
    "rbrace": "}",
    "lvert": "|",
    "rvert": "|",
}
_RAISED = str.maketrans("0123456789+-−=()nixyabckmtT∘°", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱˣʸᵃᵇᶜᵏᵐᵗᵀ°°")
_LOWERED = str.maketrans("0123456789+-−=()aeioxhklmnpstj", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎ₐₑᵢₒₓₕₖₗₘₙₚₛₜⱼ")


@lru_cache(maxsize=512)
def symbol(name: str) -> str:
    """Give the character of a macro such as `times`, or nothing where the name is unknown."""
    if name in _OWN:
        return _OWN[name]
    found = getattr(_lookup()(name), "simplify_repl", None)
    return found if isinstance(found, str) and "%" not in found else ""


@lru_cache(maxsize=1)
def _lookup() -> Callable[[str], object]:
    from pylatexenc.latex2text import get_default_latex_context_db

    lookup: Callable[[str], object] = get_default_latex_context_db().get_macro_spec
    return lookup


def raised(text: str) -> str:
    """Write an exponent in small figures where all of it can be, else after a caret."""
    return _set(text, _RAISED, "^")


def lowered(text: str) -> str:
    """Write an index in small figures where all of it can be, else after an underscore."""
    return _set(text, _LOWERED, "_")


def _set(text: str, table: dict[int, int], mark: str) -> str:
    squeezed = text.replace(" ", "")
    if all(ord(character) in table for character in squeezed):
        return squeezed.translate(table)
    return mark + (text if len(text) == 1 else f"({text})")
