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
_FACTOR = re.compile(f"left|[bB]igg?l|{_FRACTION.pattern}|{_BINOMIAL.pattern}|sqrt|math(?:bb|bf|cal|it)")
_DROPPED = re.compile(
    r"left|right|middle|[bB]igg?[lr]?|(?:display|text|script)style|(?:no)?limits|hline|nonumber|notag"
)
_WHOLE, _PART = re.compile(r"(?<![\d.,])([\d,]*\d) ?\Z"), re.compile(r"\((\d+/\d+)\)")
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
            word = self._tokens.pop()
            out = _joined(out, word, self._item(word))
        return out

    def prose(self) -> str:
        out = ""
        while self._tokens:
            word = self._tokens.pop()
            if self._is_stray_maths(word):
                out = self._stray(out, word)
            else:
                out += word
        return out

    def _stray(self, before: str, word: str) -> str:
        piece = self._item(word)
        if before[-1:].isspace():
            piece = piece.lstrip(" ")
        return _joined(before, word, piece.rstrip(" ") if self._following().isspace() else piece)

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
            word = self._tokens.pop()
            out = _joined(out, word, self._item(word))
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
        if name == "sqrt":
            return self._root()
        content = _tidied(self._argument()) if not _PLAIN.fullmatch(name) else self._argument()
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
        rest = above.removeprefix("-")
        above = above if _numerator(rest) == rest else _numerator(above)
        quotient = f"{above}/{_denominator(below)}"
        return f"({quotient})" if self._binds() else quotient

    def _root(self) -> str:
        degree, content = raised(self._option()), _tidied(self._argument())
        root = f"{degree}√{_grouped(content)}"
        return f"({root})" if self._binds() and self._tokens[-1] != "\\sqrt" else root

    def _binds(self) -> bool:
        """Whether what follows, as no sign is between, would be read as part of the piece that ends here."""
        word = next((each for each in reversed(self._tokens) if each != "{"), "")
        name = word[1:]
        if word.startswith("\\") and name[:1].isalpha():
            return _FACTOR.fullmatch(name) is not None or name in MARKS or symbol(name).isalpha()
        return word[:1].isalnum() or word[:1] in ("(", "^")

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


def _joined(left: str, word: str, piece: str) -> str:
    """Put what a word became behind a text; a mixed number keeps its gap: `2 1/2`, and `(2 1/2)x` for one of x."""
    if _FRACTION.fullmatch(word[1:]):
        whole, part = _WHOLE.search(left, max(len(left) - 40, 0)), _PART.fullmatch(piece)
        if whole and part:
            return f"{left[: whole.start()]}({whole[1]} {part[1]})"
        if piece.startswith("-") and re.search(r"[\w)]$|[\d)] $", left[-2:]):
            return f"{left}({piece})"
    is_quotient = piece[:1].isalnum() and re.fullmatch(r"[^\s/]+/[^\s/]+", piece) is not None
    has_degree = word == "\\sqrt" and piece[:1] not in ("√", "(")  # which would be read as a power
    is_apart = (is_quotient and left[-1:].isalnum()) or (
        has_degree and re.search(r"[\w)]$", left[-1:]) is not None
    )
    return f"{left} {piece}" if is_apart else left + piece


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
