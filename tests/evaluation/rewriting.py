r"""Writes answers in other words that mean the same, and in words that do not.

A rewriting gets a gold answer and gives another way to write it, or None where it has nothing to change.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

INTEGER = re.compile(r"-?\d+")
FRACTION = re.compile(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}")
LITERAL = re.compile(r"\d+(?:\.\d+)?|\.\d+")
COMMAS = re.compile(r"\d,(?:\\!)? ?\d{3}")
GROUPED = re.compile(r"[(\[{]")
UNITS = (r"\text{ cm}", r"\,\mathrm{kg}", r"\text{ dollars}", r"\text{ cm}^2", r"~\text{units}")


def is_value(gold):
    """A number or an expression: no list, no equation, no interval, no text, no digits in another base."""
    if re.search(r"[,=<>]|\\text|\\le|\\ge|\\pm|\\begin|\\circ|\\in|_|\\\{|\\\$|%", gold):
        return False
    return not re.search(r"(?<![\\A-Za-z])[A-Za-z]{4,}|np\.|\d[eE]-?\d|\./", gold)


def dollars(gold, _rng):
    return f"${gold}$"


def parentheses(gold, _rng):
    return rf"\({gold}\)"


def display(gold, _rng):
    return rf"\[ {gold} \]"


def period(gold, _rng):
    return f"{gold}."


def padded(gold, _rng):
    return f"  {gold} \n"


def braces_of_size(gold, _rng):
    if not GROUPED.search(gold) or r"\left" in gold:
        return None
    pairs = (("(", ")"), ("[", "]"), (r"\{", r"\}"))
    if any(gold.count(a) + gold.count(x) for (a, b), (x, y) in zip(pairs, pairs, strict=True)) == 0:
        return None
    text = re.sub(
        r"\\\{|[(\[]", lambda match: rf"\left{match[0]}", re.sub(r"\\sqrt\[(\d)\]", r"\\sqrt<\1>", gold)
    )
    text = re.sub(r"\\\}|[)\]]", lambda match: rf"\right{match[0]}", text)
    return re.sub(r"<(\d)>", r"[\1]", text) if text != gold else None


def plain_brackets(gold, _rng):
    return re.sub(r"\\left\s*|\\right\s*", "", gold) if r"\left" in gold else None


def other_fraction(gold, rng):
    return gold.replace(r"\frac", rng.choice([r"\dfrac", r"\tfrac"])) if r"\frac" in gold else None


def slash(gold, _rng):
    return FRACTION.sub(r"\1/\2", gold) if FRACTION.fullmatch(gold) else None


def decimal(gold, _rng):
    match = FRACTION.fullmatch(gold)
    if match and Fraction(int(match[1]), int(match[2])).denominator in (2, 4, 5, 8, 10, 20, 25, 16):
        return str(int(match[1]) / int(match[2]))
    return None


def unreduced(gold, rng):
    match = FRACTION.fullmatch(gold)
    factor = rng.randint(2, 9)
    return rf"\frac{{{int(match[1]) * factor}}}{{{int(match[2]) * factor}}}" if match else None


def as_fraction(gold, rng):
    factor = rng.randint(2, 9)
    return rf"\frac{{{int(gold) * factor}}}{{{factor}}}" if INTEGER.fullmatch(gold) else None


def zeros(gold, _rng):
    if INTEGER.fullmatch(gold):
        return f"{gold}.00"
    return f"{gold}0" if re.fullmatch(r"-?\d*\.\d+", gold) else None


def thousands(gold, rng):
    if not INTEGER.fullmatch(gold) or abs(int(gold)) < 1000:
        return None
    return f"{int(gold):,}".replace(",", rng.choice([",", r",\!", "{,}", r"\,"]))


def unit(gold, rng):
    return (
        f"{gold}{rng.choice(UNITS)}" if re.fullmatch(r"-?[\d.]+", gold) or FRACTION.fullmatch(gold) else None
    )


def currency(gold, rng):
    return rf"\${gold}" if re.fullmatch(r"\d+(\.\d+)?", gold) else None


def named(gold, rng):
    letter = rng.choice("wkz")
    return f"{letter} = {gold}" if is_value(gold) and letter not in gold else None


def degrees(gold, rng):
    if not re.search(r"\^\\circ|\^\{\\circ\}", gold):
        return None
    return re.sub(
        r"\s*\^(?:\\circ|\{\\circ\})",
        lambda _: rng.choice([r"^{\circ}", "\u00b0", r" \text{ degrees}", ""]),
        gold,
    )


def wide(gold, _rng):
    if COMMAS.search(gold) or r"\text" in gold or not re.search(r"[,+=]", gold):
        return None
    return re.sub(r"\s*([,+=])\s*", r" \1\\, ", gold)


def narrow(gold, _rng):
    text = re.sub(r"(?<![A-Za-z\\]) | (?![A-Za-z])", "", gold)
    return text if text != gold and r"\text" not in gold else None


def relations(gold, _rng):
    text = gold.replace(r"\leq", r"\le").replace(r"\geq", r"\ge")
    return text if text != gold else None


def minus(gold, _rng):
    return gold.replace("-", "\u2212") if "-" in gold else None


def text_alone(gold, rng):
    match = re.fullmatch(r"\\text\{([^{}]*)\}", gold)
    if not match:
        return None
    return rng.choice([match[1], match[1].upper(), rf"\mathrm{{{match[1]}}}", rf"\textbf{{{match[1]}}}"])


def in_text(gold, _rng):
    return rf"\text{{{gold}}}" if re.fullmatch(r"[A-Za-z ]{4,}", gold) else None


def roots(gold, _rng):
    text = re.sub(
        r"\\sqrt(?:\{(\d)\}|(\d))", lambda m: rf"\sqrt{m[1]}" if m[1] else rf"\sqrt{{{m[2]}}}", gold
    )
    return text if text != gold else None


def exponents(gold, _rng):
    text = re.sub(r"\^(?:\{(\d)\}|(\d)(?!\d))", lambda m: f"^{m[1]} " if m[1] else f"^{{{m[2]}}}", gold)
    return text if text != gold else None


def brackets_of_matrix(gold, _rng):
    return gold.replace("pmatrix", "bmatrix") if "pmatrix" in gold else None


def turned(gold, _rng):
    """A sum of two terms, or the sides of an equation without a name."""
    match = re.fullmatch(r"([^-+=(\[{,]+)( ?[-+] ?)([^-+={},|<>]+)", gold)
    if not match or not is_value(gold):
        return None
    sign = match[2].strip().replace("+", "")
    return f"{sign}{match[3]} + {match[1]}"


def list_turned(gold, _rng):
    if re.search(r"[(\[{]", gold) or "," not in gold or COMMAS.search(gold):
        return None
    return ", ".join(reversed([part.strip() for part in gold.split(",")]))


def set_turned(gold, _rng):
    match = re.fullmatch(r"\\\{([^|{}]*,[^|{}]*)\\\}", gold)
    return rf"\{{{','.join(reversed(match[1].split(',')))}\}}" if match else None


def doubled(gold, _rng):
    return (
        rf"\frac{{2 \cdot ({gold})}}{{2}}" if is_value(gold) and not re.fullmatch(r"-?[\d.]+", gold) else None
    )


def more_and_less(gold, _rng):
    return f"({gold}) + 3 - 3" if is_value(gold) and not re.fullmatch(r"-?[\d.]+", gold) else None


def based(gold, _rng):
    match = re.fullmatch(r"(\d+)_(?:\{(\d+)\}|(\d))", gold)
    return f"{match[1]}_{{{match[2] or match[3]}}}" if match else None


REWRITINGS = (
    dollars, parentheses, display, period, padded, braces_of_size, plain_brackets, other_fraction, slash, decimal,
    unreduced, as_fraction, zeros, thousands, unit, currency, named, degrees, wide, narrow, relations, minus,
    text_alone, in_text, roots, exponents, brackets_of_matrix, turned, list_turned, set_turned, doubled,
    more_and_less, based,
)  # fmt: skip
FORMULAS_ONLY = (doubled, more_and_less, turned)  # what needs algebra
LAST = (dollars, parentheses, display, period, padded)  # what goes around an answer


def rewritten(gold, rng, ways=10, algebra=True):
    """`ways` different spellings of the gold answer, with the names of what made them."""
    usable = [how for how in REWRITINGS if algebra or how not in FORMULAS_ONLY]
    found: dict[str, str] = {}
    for how in usable:
        text = how(gold, rng)
        if text is not None and text != gold:
            found.setdefault(text, how.__name__)
    while len(found) < ways:  # one way around another
        inner, outer = rng.choice(usable), rng.choice(LAST)
        text = inner(gold, rng) or gold
        if inner is outer:
            continue
        found.setdefault(outer(text, rng), f"{inner.__name__}+{outer.__name__}")
    return rng.sample(sorted(found.items()), ways)


def perturbed(gold, rng, ways=4):
    """Other answers that look like the gold one; fewer than `ways` where little can be changed."""
    found: dict[str, str] = {}
    for _ in range(4 * ways):
        how = rng.choice((one_more, other_sign, other_bracket, other_word, one_less_element))
        text = how(gold, rng)
        if text is not None and text != gold:
            found.setdefault(text, how.__name__)
    return list(found.items())[:ways]


def one_more(gold, rng):
    """A number of the answer, one larger."""
    numbers = list(LITERAL.finditer(gold))
    if not numbers:
        return None
    match = rng.choice(numbers)
    more = str(int(match[0]) + 1) if match[0].isdigit() else str(float(match[0]) + 1)
    return gold[: match.start()] + more + gold[match.end() :]


def other_sign(gold, _rng):
    if not is_value(gold) or gold in ("0",):
        return None
    return (
        gold[1:]
        if re.fullmatch(r"-[^-+]*", gold)
        else f"-({gold})"
        if re.search(r"[-+]", gold)
        else f"-{gold}"
    )


def other_bracket(gold, _rng):
    match = re.fullmatch(r"([(\[])([^()\[\]]*)([)\]])", gold)
    if not match or (match[1], match[3]) not in {("(", "]"), ("[", ")")}:
        return None
    return f"{'[' if match[1] == '(' else '('}{match[2]}{match[3]}"


def other_word(gold, _rng):
    if re.fullmatch(r"\\text\{\([A-E]\)\}", gold):
        return rf"\text{{({chr((ord(gold[7]) - 64) % 5 + 65)})}}"
    match = re.fullmatch(r"(?:\\text\{)?[A-Za-z ]{3,}\}?", gold)
    return rf"\text{{not {gold}}}".replace(r"not \text{", "not ").replace("}}", "}") if match else None


def one_less_element(gold, _rng):
    if re.search(r"[(\[]", gold) or gold.count(",") < 1 or COMMAS.search(gold) or "|" in gold:
        return None
    return gold.rsplit(",", 1)[0] + (r"\}" if gold.startswith(r"\{") else "")


def letters(item, rng):
    """Ten ways to name the right letter, as texts of an answer."""
    letter, option = item.gold, item.choices["ABCDEFGHIJ".index(item.gold)]
    ways = (
        rf"\boxed{{{letter}}}", rf"So $\boxed{{({letter})}}$.", rf"\boxed{{\text{{{letter}}}}}",
        rf"\boxed{{\textbf{{({letter})}}}}", rf"\boxed{{{letter.lower()}}}", rf"\boxed{{{letter}.}}",
        rf"\boxed{{{letter}. {option}}}", rf"\boxed{{\text{{({letter}) }} {option}}}",
        f"The answer is ({letter}).", f"The correct answer is: **{letter}**", f"A look at all says {letter}.",
        f"Therefore the right choice is {letter}: {option}", rf"Not A, not B. Hence \boxed{{{letter}}}",
        rf"$\boxed{{\mathrm{{{letter}}}}}$",
    )  # fmt: skip
    return [(text, "letter") for text in rng.sample(ways, 10)]


def other_letters(item, rng):
    """The same with a letter that is wrong."""
    others = [letter for letter in "ABCD" if letter != item.gold]
    return letters(replace(item, gold=rng.choice(others)), rng)[:4]
