r"""Reads LaTeX maths, word by word, into plain Unicode: `\frac{48}{2} \times x^2` becomes `48/2 × x²`.

Knows nothing of delimiters (see latex.py) and of what a symbol looks like (see symbols.py). pylatexenc's own
conversion isn't used: it writes (a+b)/c as a+b/c, a \dfrac of 1 and 2 as 12, and drops the index of a root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rsd_cli.display.symbols import DOUBLE_STRUCK, MARKS, lowered, raised, symbol

_DEEPEST = 50  # pieces within pieces: what a macro applies to is one, a group there another
_TOKEN = re.compile(
    r"\\\\(?:\[-?[\d.]{1,6} ?(?:pt|em|ex|mm|cm)\])?|\\[A-Za-z]+\*?|\\.|[{}^_&~]|[^\\{}^_&~]+|\\", re.DOTALL
)
_FRACTION = re.compile(r"[dtc]?frac")
_BINOMIAL = re.compile(r"[dt]?binom")
_PLAIN = re.compile(
    r"text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|tt|cal|frak)|boldsymbol|operatorname|[mh]box|emph"
    r"|under(?:line|brace)|overbrace"
)
_APPLIED = re.compile(f"{_PLAIN.pattern}|{_FRACTION.pattern}|{_BINOMIAL.pattern}|sqrt|boxed|fbox|pmod|mathbb")
_DROPPED = re.compile(
    r"left|right|middle|[bB]igg?[lr]?|(?:display|text|script)style|(?:no)?limits|hline|nonumber|notag"
)
_SPACES = frozenset(("\\,", "\\;", "\\:", "\\ ", "\\>", "~"))
_SPACED = frozenset("×·÷±∓≤≥≠≈≡≅∼∝→←⇒⇔⟶⟹⟺∈∉∪∩⊂⊆∧∨∴∵")


@dataclass(frozen=True)
class _Layout:
    """How the cells and rows of an environment are set apart."""

    begin: str = ""
    cell: str = " "
    row: str = "; "
    end: str = ""


_LINES = _Layout(row="\n")
_LAYOUTS = {
    "cases": _Layout("{ ", ", "),
    "matrix": _Layout(),
    "pmatrix": _Layout("(", end=")"),
    "bmatrix": _Layout("[", end="]"),
    "Bmatrix": _Layout("{", end="}"),
    "vmatrix": _Layout("|", end="|"),
}


class TooDeepError(Exception):
    """Braces, scripts or macros are nested deeper than a formula's would be."""


def read_formula(source: str) -> str:
    """Read a text in which everything is maths."""
    return _tidied(_Reader(source).maths())


def read_prose(source: str) -> str:
    r"""Read prose with stray macros in it, such as `\boxed{72}` or `48 \times 2`."""
    return _Reader(source).prose()


class _Reader:
    """A cursor over the tokens of one text."""

    def __init__(self, source: str) -> None:
        self._tokens: list[str] = _TOKEN.findall(source)[::-1]
        self._depth = 0
        self._layouts = [_LINES]

    def maths(self) -> str:
        out = ""
        while self._tokens:
            out = _joined(out, self._item(self._tokens.pop()))
        return out

    def prose(self) -> str:
        parts: list[str] = []
        while self._tokens:
            word = self._tokens.pop()
            parts.append(self._stray(word, parts) if self._is_stray_maths(word) else word)
        return "".join(parts)

    def _stray(self, word: str, before: list[str]) -> str:
        piece = self._item(word)
        if before and before[-1][-1:].isspace():
            piece = piece.lstrip(" ")
        return piece.rstrip(" ") if self._following().isspace() else piece

    def _is_stray_maths(self, word: str) -> bool:
        before_group = bool(self._tokens) and self._tokens[-1] == "{"
        if word in ("^", "_"):
            return before_group
        name = word[1:]
        if not word.startswith("\\") or len(name) < 2:
            return name in ("%", "$") and word.startswith("\\")
        return before_group if _is_applied(name) else name in ("left", "right") or bool(symbol(name))

    def _item(self, word: str) -> str:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise TooDeepError
        piece = self._piece(word)
        self._depth -= 1
        return piece

    def _piece(self, word: str) -> str:
        if word == "{":
            return self._group()
        if word in ("^", "_"):
            return self._script(word)
        if word in _SPACES:
            return " "
        if word == "&":
            return self._layouts[-1].cell
        if word.startswith("\\\\"):
            return self._layouts[-1].row
        return self._macro(word) if word.startswith("\\") and len(word) > 1 else word

    def _group(self) -> str:
        out = ""
        while self._tokens and self._tokens[-1] != "}":
            out = _joined(out, self._item(self._tokens.pop()))
        if self._tokens:
            self._tokens.pop()
        return out

    def _argument(self) -> str:
        """Read what a macro applies to: a group, a macro or a single character."""
        while self._tokens and not self._tokens[-1].strip(" \n\t"):
            self._tokens.pop()
        if not self._tokens or self._tokens[-1] in ("}", "&"):
            return ""
        word = self._tokens.pop()
        if word[0] in "\\{^_":
            return self._item(word)
        word = word.lstrip(" \n\t")
        if len(word) > 1:
            self._tokens.append(word[1:])
        return word[0]

    def _script(self, mark: str) -> str:
        content = _tidied(self._argument())
        return raised(content) if mark == "^" else lowered(content)

    def _macro(self, word: str) -> str:
        name = word[1:]
        if _FRACTION.fullmatch(name):
            return self._fraction()
        if name in ("begin", "end"):
            return self._environment(name)
        if _is_applied(name):
            return self._applied(name)
        if _DROPPED.fullmatch(name):
            self._skip("." if name in ("left", "right") else "")
            return ""
        return self._named(word) if name[0].isalpha() else _escaped(word)

    def _named(self, word: str) -> str:
        sign = symbol(word[1:])
        if not sign:
            return self._unknown(word)
        return f" {sign} " if sign in _SPACED else self._apart(sign)

    def _unknown(self, word: str) -> str:
        is_applied = bool(self._tokens) and self._tokens[-1] == "{"
        return f"{word}{{{self._argument()}}}" if is_applied else word

    def _apart(self, sign: str) -> str:
        """Keep a function's name apart from what it is applied to: `cos x` for `\\cos{x}`."""
        is_word = len(sign) > 1 and sign.isalpha()
        following = self._following()
        return f"{sign} " if is_word and (following.isalnum() or following in ("\\", "{")) else sign

    def _following(self) -> str:
        return self._tokens[-1][:1] if self._tokens else ""

    def _applied(self, name: str) -> str:
        if _BINOMIAL.fullmatch(name):
            return f"C({_tidied(self._argument())}, {_tidied(self._argument())})"
        root = self._option() if name == "sqrt" else ""
        content = _tidied(self._argument()) if not _PLAIN.fullmatch(name) else self._argument()
        if name == "sqrt":
            return (raised(root) if root else "") + "√" + _grouped(content)
        if name in ("boxed", "fbox"):
            return f"⟦{content}⟧"
        if name == "pmod":
            return f" (mod {content})"
        if name == "mathbb":
            return DOUBLE_STRUCK.get(content, content)
        mark = MARKS.get(name, "")
        return "".join(character + mark for character in content) if mark else content

    def _fraction(self) -> str:
        above, below = _tidied(self._argument()), _tidied(self._argument())
        sign = "-" if above.startswith("-") and len(above) > 1 else ""
        quotient = f"{sign}{_numerator(above.removeprefix(sign))}/{_denominator(below)}"
        following = self._following()
        return f"({quotient})" if following.isalnum() or following == "(" else quotient

    def _environment(self, edge: str) -> str:
        name = self._argument().rstrip("*")
        layout = _LAYOUTS.get(name, _LINES)
        if edge == "end":
            self._layouts = self._layouts[:-1] or [_LINES]
            return layout.end
        if name in ("array", "tabular"):
            self._argument()
        self._layouts.append(layout)
        return layout.begin

    def _option(self) -> str:
        """Read the `[3]` of a cube root."""
        match = re.match(r"\[([^\]]{1,8})\]", self._tokens[-1]) if self._tokens else None
        if match is None:
            return ""
        self._skip(match.group())
        return match[1]

    def _skip(self, text: str) -> None:
        if text and self._tokens and self._tokens[-1].startswith(text):
            rest = self._tokens.pop()[len(text) :]
            if rest:
                self._tokens.append(rest)


def _is_applied(name: str) -> bool:
    return name in MARKS or _APPLIED.fullmatch(name) is not None


def _escaped(word: str) -> str:
    character = word[1:]
    return {"!": "", "|": "‖", "\n": " "}.get(character, character if character in "%$#&_{}" else word)


def _joined(left: str, right: str) -> str:
    """Put two pieces together; a mixed number keeps its gap: `2 1/2`."""
    is_quotient = right[:1].isalnum() and re.fullmatch(r"[^\s/]+/[^\s/]+", right) is not None
    return f"{left} {right}" if is_quotient and left[-1:].isalnum() else left + right


def _grouped(content: str) -> str:
    """Put what isn't a single term in parentheses."""
    return f"({content})" if re.search(r"[\s+\-−±×·÷/=<>≤≥≠]", content) else content


def _numerator(content: str) -> str:
    bare = re.sub(r"\([^()/]*\)", "", content)
    return content if bare and _grouped(bare) == bare else _grouped(content)


def _denominator(content: str) -> str:
    is_single = re.fullmatch(r"\$?[\d.,]+%?|[^\W\d]+[²³⁰-⁹₀-₉]*|√\w+", content) is not None
    return content if is_single or not content else f"({content})"


def _tidied(text: str) -> str:
    lines = (re.sub(r"[ \t]+(?=[ \t,;])", "", line).strip(" \t") for line in text.strip(" \n\t").split("\n"))
    return "\n".join(lines)
