r"""Expressions that try to hang, crash or take over whoever evaluates them."""

from __future__ import annotations

CODE = (  # {} is the sentinel file
    "__import__('os').system('touch {}')",
    "open('{}','w').write('x')",
    "exec(\"open('{}','w')\")",
    'eval(\'__import__("pathlib").Path("{}").touch()\')',
    "().__class__.__base__.__subclasses__()[0].__init__.__globals__['os'].system('touch {}')",
    "[x for x in [__import__('subprocess').run(['touch','{}'])]]",
    "lambda: __import__('os').popen('touch {}')",
    'S(\'__import__("os").system("touch {}")\')',
    "sympify(\"open('{}','a')\")",
    '";touch {};"',
)
PLACES = (
    "%s", r"\text{%s}", r"\mathrm{%s}", r"f(%s)", r"\gcd(%s,2)", r"\max(%s,3)", r"\operatorname{lcm}(%s,4)",
    r"\frac{%s}{2}", r"\sqrt{%s}", "x_{%s}", r"\{%s\}", r"\begin{pmatrix} %s \\ 2 \end{pmatrix}", r"\int %s dx",
    "x = %s", r"\operatorname{%s}(2)", "(%s, 2)", r"\binom{%s}{2}", r"\mathbb{%s}", "%s + 1", r"\log_{%s} 3",
)  # fmt: skip


def code(sentinel):
    """200: every piece of code in every place."""
    return [place % piece.format(sentinel) for piece in CODE for place in PLACES]


def towers(rng):
    """100 powers that no memory can hold."""
    found = []
    for _ in range(100):
        tower = str(rng.randint(2, 99))
        for _ in range(rng.randint(2, 6)):
            tower = f"{rng.randint(2, 9)}^{{{tower}}}"
        found.append(f"{rng.choice(['', '-', 'x+', '2/'])}{rng.randint(5, 99)}^{{{tower}}}")
    return found


def factorials(rng):
    """100 products and sums that never end."""
    shapes = (
        "{n}!",
        "({n}!)!",
        r"\binom{{{n}}}{{{m}}}",
        r"\sum_{{i=1}}^{{{n}}} i^i",
        r"\prod_{{i=1}}^{{{n}}} i",
        "{n}!/{m}!",
    )
    return [
        rng.choice(shapes).format(n=rng.randint(10**6, 10**12), m=rng.randint(10**5, 10**6))
        for _ in range(100)
    ]


def nested(rng):
    """150 brackets within brackets, balanced or not."""
    pairs = (
        ("{", "}"), ("(", ")"), (r"\frac{1}{", "}"), (r"\sqrt{", "}"), (r"\{", r"\}"), ("|", "|"), ("x^{", "}"),
        (r"\left(", r"\right)"), (r"\boxed{", "}"), (r"\text{", "}"), (r"\(", r"\)"),
    )  # fmt: skip
    found = []
    for i in range(150):
        opening, closing = pairs[i % len(pairs)]
        depth = rng.choice([30, 60, 150, 2000])
        found.append(opening * depth + "1" + closing * (depth - rng.choice([0, 0, 1, depth // 2])))
    return found


def enormous(rng):
    """100 very long strings."""
    pieces = ("9", "x+", "$", "\\", r"\frac", "1,", "[", "^2", "\u0661", r"\alpha ")
    return [pieces[i % len(pieces)] * rng.choice([500, 5_000, 100_000]) for i in range(100)]


def broken(rng):
    """350 strings of what a formula is made of, with control characters."""
    commands = [
        r"\frac", r"\sqrt", r"\int", r"\sum", r"\le", r"\{", r"\}", r"\\", r"\infty", r"\pm", r"\pi",
        r"\circ", r"\text{", r"\begin{pmatrix}", r"\end{pmatrix}",
    ]  # fmt: skip
    characters = "^_{}()[]xy0=<,|'\"!&%$-/#@\x00\x1b\n\ud800\u202e"
    pieces = [*commands, *characters, r"\lim_{x\to 0}", "12", "None", "nan"]
    return ["".join(rng.choices(pieces, k=rng.randint(1, 25))) for _ in range(350)]


def expressions(rng, sentinel):
    """All 1,000."""
    return [*code(sentinel), *towers(rng), *factorials(rng), *nested(rng), *enormous(rng), *broken(rng)]
