from __future__ import annotations

import random
import re
import subprocess
import sys
import time
import unicodedata

import pytest

from rsd_cli.display.latex import formula, readable

OUTPUTS = {
    r"\[ \text{Clips in May} = \frac{48}{2} = 24 \]": "Clips in May = 48/2 = 24",
    r"\(48 + 24 = 72\)": "48 + 24 = 72",
    r"$x^2 + 3x_1$": "x² + 3x₁",
    r"The answer is \boxed{72}.": "The answer is ⟦72⟧.",
    r"\boxed{\frac{1}{2}}": "⟦1/2⟧",
    r"\boxed{\text{72 clips}} or \boxed{$5$}": "⟦72 clips⟧ or ⟦5⟧",
    r"\boxed{\$18}": "⟦$18⟧",
    "\\[\n48 + 24 = 72\n\\]": "48 + 24 = 72",
    r"\[ 5 \text{ apples} \times \$2/\text{apple} = \$10 \]": "5 apples × $2/apple = $10",
    r"$\frac{a+b}{c}$ and $x = -\frac{b}{2a}$": "(a+b)/c and x = -b/(2a)",
    r"$2\frac{1}{2}$ is \(\frac52\)": "2 1/2 is 5/2",
    r"\(\frac{\frac{1}{2}}{3}\)": "(1/2)/3",
    r"$$\sum_{i=1}^{n} i = \frac{n(n+1)}{2}$$": "∑ᵢ₌₁ⁿ i = n(n+1)/2",
    r"\begin{aligned} a &= b \\ c &= d \end{aligned}": "a = b\nc = d",
    r"$\begin{pmatrix}1&2\\3&4\end{pmatrix}$": "(1 2; 3 4)",
    r"$\begin{cases} 1 & x>0 \\ 0 & x\le 0\end{cases}$": "{ 1, x>0; 0, x ≤ 0",
    r"\(\sqrt{2} + \sqrt[3]{x+1}\)": "√2 + ³√(x+1)",
    r"\(\cos\theta, \log_2 8, 90^\circ\)": "cos θ, log₂ 8, 90°",
    r"$10{,}000 \times2 \Rightarrow e^{-x^2}$": "10,000 × 2 ⇒ e^(-x²)",
    r"$0.\overline{3} \in \mathbb{Q}$": "0.3\u0305 ∈ ℚ",
    r"\(50\% \cdot \left( 4 \right)\)": "50% · ( 4 )",
    r"3 \times 4 = 12, x^{2}, \$5": "3 × 4 = 12, x², $5",
    r"\textbf{Step 1}: 50% of 10 is 5 % more": "Step 1: 50% of 10 is 5 % more",
    r"The total is $48$ dollars + $\$24$.": "The total is 48 dollars + $24.",
    r"\( unfinished \frac{1}{": "unfinished 1/",
    r"\(\unknown{a} \other\)": r"\unknown{a} \other",
}

PRODUCTS = {
    r"\sqrt{2}3": "(√2)3",
    r"\sqrt{x}y": "(√x)y",
    r"\sqrt{x}{y}": "(√x)y",
    r"\sqrt{2}\pi": "(√2)π",
    r"\sqrt{16}(2)": "(√16)(2)",
    r"\sqrt{2}^2": "(√2)²",
    r"\sqrt{2}\frac{1}{2}": "(√2)1/2",
    r"\sqrt{2}\sqrt{3}": "√2√3",
    r"2\sqrt{3} + \sqrt{5} = x": "2√3 + √5 = x",
    r"2\sqrt[3]{5}": "2 ³√5",
    r"\frac{2}{3}^2": "(2/3)²",
    r"\frac{1}{2}{x}": "(1/2)x",
    r"\frac{1}{2}\sqrt{3}": "(1/2)√3",
    r"\frac{1}{2}\frac{3}{4}": "(1/2)3/4",
    r"\frac{1}{2}\vec{a}": "(1/2)a\u20d7",
    r"\frac{1}{2}\sin x": "(1/2)sin x",
    r"\frac{1}{2}\left(x\right)": "(1/2)(x)",
    r"\left(\frac{1}{2}\right)": "(1/2)",
    r"\frac{4}{3}\pi r^3": "(4/3)π r³",
    r"2\frac{1}{2}x": "(2 1/2)x",
    r"1{,}250\frac{1}{2}\pi": "(1,250 1/2)π",
    r"2\frac{a}{b}x": "2(a/b)x",
    r"3\frac{-1}{2}": "3(-1/2)",
    r"(x) \frac{-1}{2}": "(x) (-1/2)",
    r"(x)\frac{-1}{2}": "(x)(-1/2)",
    r"3 \frac{-1}{2}": "3 (-1/2)",
    r"3 \times \frac{-1}{2}": "3 × -1/2",
    r"x_1-1/2": "x₁-1/2",
    r"\frac{-3+5}{2}": "(-3+5)/2",
    r"\frac{-3}{2} + 5": "-3/2 + 5",
    r"\frac{-n(n+1)}{2}": "-n(n+1)/2",
    r"\frac{1}{2} \times 3": "1/2 × 3",
    r"\frac{1}{2}\cdot3": "1/2 · 3",
    r"\frac{1}{2}=x\le\frac{1}{2}+3": "1/2=x ≤ 1/2+3",
    r"\frac{1}{2}\text{ cup}": "1/2 cup",
}

PIECES = [
    *("\\", "{", "}", "$", "^", "_", "&", "(", ")", "`", "%", "1", "2", "34", "a", " ", "\n", "\\\\"),
    *(r"\[", r"\]", r"\(", r"\)", r"\boxed{", r"\text{", r"\begin{cases}", r"\end{cases}", r"\left"),
    *(r"\right", r"\frac", r"\sqrt", r"\times", r"\pmod", r"\overline", r"\foo"),
]

PROSE = [
    "It costs $5 and $7.",
    "She has $20 - $5 = $15 left, so $15/3 = $5.",
    "pay $5 for a pen and 2$ more",
    r"C:\temp\new, \d+, my_var_1 and x^2",
    "`\\frac{1}{2}` and ```py\nx_{1} = '\\times'```",
    "100% sure, 50 % off & {braces} ~ tilde",
    "\\",
    "$",
    "",
]


@pytest.mark.parametrize(("source", "shown"), OUTPUTS.items())
def test_a_models_latex_is_readable(source, shown):
    assert readable(source) == shown


@pytest.mark.parametrize(("source", "shown"), PRODUCTS.items())
def test_a_product_of_what_is_written_in_one_line_keeps_its_value(source, shown):
    assert formula(source) == shown


def test_a_product_in_prose_keeps_its_value_as_well():
    assert readable(r"2\frac{1}{2} cups, 3\frac{-1}{2}, \sqrt{2}x") == "2 1/2 cups, 3(-1/2), (√2)x"


@pytest.mark.parametrize("text", PROSE)
def test_prose_stays(text):
    assert readable(text) == text


def test_a_boxs_content_is_maths_without_delimiters():
    assert formula(r"\frac{1}{2}x^{10}") == "(1/2)x¹⁰"


def test_what_is_too_long_or_too_deep_stays():
    long = r"\(" + "x + " * 1000 + r"\)"
    deep = r"\(" + "{" * 60 + "x" + "}" * 60 + r"\)"
    assert readable(long) == long
    assert readable(deep) == deep
    assert formula(deep[2:-2]) == deep[2:-2]


@pytest.mark.parametrize(
    "nested", ["x" + "^" * 600 + "2", "\\sqrt" * 280 + "2", "\\frac" * 280, "\\pmod^" * 200 + "3"]
)
def test_what_is_nested_without_braces_is_too_deep_as_well(nested):
    assert readable(f"${nested}$") == f"${nested}$"
    assert formula(nested) == nested
    assert readable(f"\\boxed{{{nested}}}") == f"\\boxed{{{nested}}}"


def test_a_deep_formula_is_read():
    deep = "1"
    for _ in range(12):
        deep = rf"\sqrt{{\frac{{{deep}}}{{2}}}}"
    assert "\\" not in readable(f"${deep}$")


@pytest.mark.parametrize(
    "piece",
    [
        "{",
        "$",
        "\\(",
        "\\frac",
        "\\boxed{",
        "^",
        "^{",
        "\\begin{a}",
        "`",
        "$a",
        "$$a",
        "\\begin",
        "\\$",
        "\\sqrt{2}{",
        "1\\frac{1}{2}x",
    ],
)
def test_repetition_takes_no_time(piece):
    started = time.perf_counter()
    readable(piece * 5_000)
    assert time.perf_counter() - started < 5


def test_malformed_latex_neither_raises_nor_loses_digits():
    source = random.Random(3)
    for _ in range(3_000):
        text = "".join(source.choices(PIECES, k=source.randint(1, 25)))
        plain = unicodedata.normalize("NFKC", readable(text))
        assert re.findall(r"\d", plain) == re.findall(r"\d", text), text


def test_plain_text_costs_no_import():
    code = (
        "import sys, rsd_cli.display.latex as l; l.readable('plain'); sys.exit('pylatexenc' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
