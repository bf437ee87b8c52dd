"""Is an answer the gold one? Numbers as numbers, text as text."""

import pytest

from rsd_cli.evaluation.grader import is_right
from rsd_cli.evaluation.grading import alike, as_number, gsm8k_gold, same_answer


@pytest.mark.parametrize(
    ("given", "gold"),
    [
        ("72", "72"), ("72.0", "72"), ("1,000", "1000"), ("\\$72", "72"), ("$18", "18"), ("18 dollars", "18"),
        ("50\\%", "50"), ("\\frac{1}{2}", "0.5"), ("\\dfrac{1}{2}", "1/2"), ("-3", "-3"), (".5", "0.5"),
        ("72 \\text{ clips}", "72"), ("72.", "72"), ("x + 1", "x+1"), ("\\text{A}", "\\text{A}"), ("yes", "yes"),
    ],
)  # fmt: skip
def test_the_same_answers(given, gold):
    assert same_answer(given, gold)


@pytest.mark.parametrize(
    ("given", "gold"),
    [
        ("71", "72"),
        ("", "72"),
        ("", ""),
        ("7 or 2", "7"),
        ("-3", "3"),
        ("1/0", "1"),
        ("no", "yes"),
        ("720", "72"),
    ],
)
def test_other_answers(given, gold):
    assert not same_answer(given, gold)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("So \\boxed{72}.", True),
        ("First \\boxed{1}, then \\boxed{72}", True),
        ("\\boxed{72} but no: \\boxed{71}", False),
        ("The answer is 72.", True),
        ("The answer is 72 clips, not 71.", False),
        ("", False),
        ("No number at all", False),
    ],
)
def test_the_last_box_counts_and_else_the_last_number(text, right):
    assert is_right(text, "72") is right


@pytest.mark.parametrize(
    "given",
    [
        r"\text{18}", r"\text{18 dollars}", r"\textbf{18}", r"\mathbf{18}", r"\text{\$18}", r"\boldsymbol{18.0}",
        r"\text{ 18 }", r"\mathbf{\$18}", r"\mathbf{18}\text{ dollars}", r"$\mathbf{18}$", r"\text{18\%}",
    ],
)  # fmt: skip
def test_a_number_in_text_or_bold_is_that_number(given):
    assert same_answer(given, "18")
    assert is_right(rf"So $\boxed{{{given}}}$.", "18")
    assert not same_answer(given, "19")
    assert alike([given, "18", "19"]) == [[0, 1], [2]]


@pytest.mark.parametrize(
    ("given", "gold"),
    [
        (r"\text{not 18}", "18"), (r"\text{18 or 19}", "18"), (r"\text{May 18}", "18"), (r"\text{18 is wrong}", "18"),
        (r"\text{June 18}", r"\text{May 18}"), (r"2\mathbf{v}", r"2\mathbf{w}"), (r"2\mathbf{v}", "2"),
        (r"\text{x > 18}", "18"), (r"\text{18}^2", "18"),
    ],
)  # fmt: skip
def test_what_else_stands_in_text_or_bold_is_no_number(given, gold):
    assert not same_answer(given, gold)


@pytest.mark.parametrize(
    ("given", "gold"),
    [
        ("60 miles/hour", "60"), ("18 eggs/day", "18"), ("$20/hour", "20"), ("10 cm^2", "10"), ("10 cm²", "10"),
        ("18 (dollars)", "18"), ("2 1/2 hours", "2.5"), ("2 1/2 hours per day", "2.5"), ("(-5)", "-5"), ("1½", "1.5"),
        ("½", "0.5"), ("10cm", "10"), ("18eggs", "18"), ("Rs.18", "18"), ("5 m/s^2", "5"), ("5 kg", "5"),
    ],
)  # fmt: skip
def test_a_number_is_the_same_with_its_unit(given, gold):
    assert same_answer(given, gold)


@pytest.mark.parametrize(
    ("given", "gold"),
    [
        ("2ac", "2ab"), ("2", "2ab"), ("2gh", "2gR"), ("5", "5R"), ("5m", "5g"), ("√2", "2"), ("sqrt 2", "2"),
        ("ln 2", "2"), ("2pi", "2"), ("2 pi", "2"), ("3²", "3"), ("cos 0", "0"), ("1½", "1"), ("2 1/2", "21/2"),
        ("1 2", "12"), ("20/m", "20"), ("20/ab", "20"), ("12 x^2", "12 y^2"), ("12 ab^2", "12"), ("(5)(2)", "5"),
    ],
)  # fmt: skip
def test_what_is_more_than_a_number_with_its_unit_is_no_number(given, gold):
    assert not same_answer(given, gold)
    assert len(alike([given, gold])) == 2


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("The change is −5 degrees.", "-5"), ("He lost -$5.", "-5"), ("It is between 10-15", "15"), ("3 - 2", "2"),
        (r"It is $\frac{3}{4}$.", "0.75"), (r"It is $1\dfrac{3}{4}$ cups.", "1.75"), ("It is 18 %.", "18"),
        ("The answer is 18.\n\n" + "This is what was asked. " * 12, "18"),
        ("In all 1,234 of them, " + "and so on, " * 17 + "is it.", "1234"),
        (r"So \boxed{18}. It stands within \boxed{}, as asked.", "18"), (r"It is 18, within \boxed{}.", "18"),
    ],
)  # fmt: skip
def test_the_last_number_of_a_text_is_found_whole(text, gold):
    assert is_right(text, gold)


def test_golds_and_long_answers():
    assert gsm8k_gold("He has 3.\n#### 1,234") == "1,234"
    assert gsm8k_gold("12") == "12"
    assert as_number("1" * 200) is not None
    assert as_number("1" * 100_000) is None
    assert not same_answer("9" * 5000 + "/7", "1")
