r"""Turns LaTeX in a model's text into text that reads well on a terminal.

Between delimiters (`\( \)`, `\[ \]`, `$ $`, `$$ $$`, environments) everything is maths. Outside, only
macros that cannot be prose are turned, so money, code and snake_case stay as they are. What is malformed,
unknown, very long or deeply nested stays as written. No typesetting: fractions become `a/b`.
"""

from __future__ import annotations

import re

from rsd_cli.display.formula import TooDeepError, read_formula, read_prose

_LONGEST = 2_000  # characters of one formula; more than that is not a formula

_SEGMENT = re.compile(
    r"""
      (?P<code> ```.*?(?:```|\Z) | `[^`\n]+` )
    | \$\$ (?P<block> .+? ) \$\$
    | (?<!\\) \\\[ (?P<display> .*? ) (?: \\\] | \Z )
    | (?<!\\) \\\( (?P<inline> .*? ) (?: \\\) | \Z )
    | (?P<environment> \\begin\{ (?P<name> [a-z]+ \*? ) \} .*? (?: \\end\{ (?P=name) \} | \Z ) )
    | (?P<macro> \\(?:boxed|fbox|emph|text[a-z]*) \{ (?: [^{}] | \{[^{}]*\} )* \} )
    | (?<![\\$\w]) \$ (?P<dollars> (?![\s$]) (?: \\[^\n] | [^$\\\n] )+? ) (?<!\s) \$ (?!\d)
    """,
    re.DOTALL | re.VERBOSE,
)
_MATHS = ("block", "display", "inline", "environment", "macro", "dollars")
_INNER = re.compile(r"(?<!\\)\$(?!\s)([^$\n]+?)(?<![\\\s])\$(?!\d)|\\\((.+?)\\\)")
_LATEX = re.compile(r"[\\$]|[\^_]\{")
_QUOTED = re.compile(r"\\(?:text|mathrm|textbf|mbox)\{[^{}]*\}")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")


def readable(text: str) -> str:
    """Write the LaTeX inside a text as plain Unicode; everything else stays."""
    if not _LATEX.search(text):
        return text
    parts: list[str] = []
    end = 0
    for match in _SEGMENT.finditer(text):
        parts += (_prose(text[end : match.start()]), _segment(match))
        end = match.end()
    return "".join((*parts, _prose(text[end:])))


def formula(text: str) -> str:
    """Write a text that is maths as a whole, such as the content of a box, as plain Unicode."""
    if len(text) > _LONGEST:
        return text
    try:
        return read_formula(text)
    except TooDeepError:
        return text


def _segment(match: re.Match[str]) -> str:
    source = match.group()
    kind = next((name for name in _MATHS if match[name] is not None), None)
    if kind is None or len(source) > _LONGEST or (kind == "dollars" and _is_money(match[kind])):
        return source
    try:
        return read_formula(_INNER.sub(_unwrapped, match[kind]))
    except TooDeepError:
        return source


def _unwrapped(match: re.Match[str]) -> str:
    return match[1] or match[2]


def _prose(text: str) -> str:
    if not _LATEX.search(text):
        return text
    try:
        return read_prose(text)
    except TooDeepError:
        return text


def _is_money(text: str) -> bool:
    """Tell `$5 for a pen and 2$` from a formula: it starts with a figure and has words outside of macros."""
    return text[0].isdigit() and bool(_WORD.search(_QUOTED.sub("", text)))
