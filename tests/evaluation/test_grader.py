"""The grader accepts a gold answer however it is written, and nothing else; no expression hangs it or runs."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from rsd_cli.errors import RSDError
from rsd_cli.evaluation import maths, maths_worker
from rsd_cli.evaluation.choices import letter_of_box, letter_of_text
from rsd_cli.evaluation.grader import Grade, Grader, is_formula, is_right, need_maths
from rsd_cli.evaluation.items import Item
from rsd_cli.evaluation.taskdata import load
from rsd_cli.evaluation.tasks import TASKS
from tests.evaluation import hostile
from tests.evaluation.rewriting import letters, other_letters, perturbed, rewritten

GOLDS = [json.loads(line) for line in Path(__file__).with_name("golds.jsonl").read_text("utf-8").splitlines()]
BENCHMARKS = os.environ.get("RSD_BENCHMARKS")


@pytest.fixture(scope="module")
def grader():
    with Grader() as made:
        yield made


def agreement(grader, items, task, seed):
    """How many of ten spellings of each gold are right, how many of others are not, and the failures."""
    rng, missed, accepted = random.Random(seed), [], []
    spellings = others = 0
    for item in items:
        if task.answer_type == "choice":
            same, different = letters(item, rng), other_letters(item, rng)
        else:
            same = boxed(rewritten(item.gold, rng, algebra=task.answer_type == "maths"))
            different = boxed(perturbed(item.gold, rng))
        spellings += len(same)
        others += len(different)
        right = [
            grader.grade(text, "eog", item.gold, task.answer_type, item.choices).right for text, _ in same
        ]
        wrong = [
            grader.grade(text, "eog", item.gold, task.answer_type, item.choices).right
            for text, _ in different
        ]
        missed += [(item.gold, *one) for one, is_right in zip(same, right, strict=True) if not is_right]
        accepted += [(item.gold, *one) for one, is_right in zip(different, wrong, strict=True) if is_right]
    return 1 - len(missed) / spellings, 1 - len(accepted) / others, missed + accepted


def boxed(ways):
    return [(f"So the answer is $\\boxed{{{text}}}$.", how) for text, how in ways]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["math500", "gsm8k"])
def test_golds_in_other_words_are_right_and_other_answers_are_not(grader, name, seed):
    items = [Item(str(gold["row"]), "", gold["answer"], {}) for gold in GOLDS if gold["set"] == name]
    agrees, rejects, failures = agreement(grader, items, TASKS[name], seed)
    assert agrees >= 0.99, failures
    assert rejects >= 0.99, failures


@pytest.mark.skipif(not BENCHMARKS, reason="RSD_BENCHMARKS names no folder with benchmark files")
@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("gsm8k-test*", "gsm8k"), ("gsm8k-train*", "gsm8k"), ("math500*", "math500"), ("minerva*", "minerva"),
        ("gaokao2023en*", "gaokao2023en"), ("olympiadbench*", "olympiadbench"), ("mmlu-stem*", "mmlu-stem"),
    ],
)  # fmt: skip
def test_every_gold_of_the_benchmark_files(grader, pattern, name):
    (file,) = Path(str(BENCHMARKS)).glob(f"{pattern}.jsonl")
    agrees, rejects, failures = agreement(grader, load(TASKS[name], file).items, TASKS[name], 0)
    print(f"{file.name}: accepted {agrees:.2%}, rejected {rejects:.2%}")  # noqa: T201 - pytest -rP shows it
    assert agrees >= 0.99, failures
    assert rejects >= 0.99, failures


@pytest.mark.parametrize(
    ("given", "gold"),
    [
        ("x>2", r"(2,\infty)"), (r"\{x \mid x > 2\}", r"(2,\infty)"), ("[-2,1)", r"\{x|-2\leq x < 1\}"),
        ("1+\\sqrt{19}, 1-\\sqrt{19}", r"1 \pm \sqrt{19}"), (r"\arcsin(10/13)", "np.arcsin(10/13)"),
        ("3.83 \\times 10^{35}", "3.83e35"), ("0.5", r"50\%"), (r"50\%", "50"), ("52", "52_8"), ("-1/3", "-1./3"),
        (r"\frac{x^2-1}{x-1}", "x+1"), ("-5x+7y-11z-4=0", "5x - 7y + 11z + 4 = 0"), ("(C)", r"\text{C}"),
        ("2x", "f(x)=2x"), ("√3", r"\sqrt{3}"), ("√(x+1)", r"\sqrt{x+1}"), ("x²", "x^2"), ("½", r"\frac{1}{2}"),
        ("2yx", "2xy"), ("60 miles/hour", "60"),
    ],
)  # fmt: skip
def test_formulas_that_are_the_same(grader, given, gold):
    assert grader.compare(given, gold, "maths") == "right"


@pytest.mark.parametrize(
    ("given", "gold"),
    [
        ("x>3", r"(2,\infty)"), ("(1,2)", "(2,1)"), ("52_9", "52_8"), ("42", "52_8"), ("seat", r"\text{east}"),
        ("1, 2", "12"), (r"\frac{dM}{dt}=L^2 M^7", r"\frac{dM}{dt}=L^2 M^6"),
        ("2.8e-6", "2.9e-6"), (r"1\frac{2}{3}", "4"), ("x+1", "x+2"), ("6+5i", "6-5i"), ("0.5", "50"),
        ("20001", "20000"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}"),
        (r"\frac{dM}{dt}=M^7", r"\frac{dM}{dt}=M^6"), (r"\{x|x=4k\}", r"\{x|x=3k\}"), ("3!", "3"),
        ("2xz", "2xy"), ("2", "2xy"), ("5", "5R"), ("√2", "2"), ("ln 2", "2"), ("3²", "3"), ("2 1/2", "21/2"),
        ("1 2", "12"),
    ],
)  # fmt: skip
def test_formulas_that_are_not(grader, given, gold):
    assert grader.compare(given, gold, "maths") != "right"


@pytest.mark.parametrize("answer_type", ["maths", "numeric"])
@pytest.mark.parametrize(
    ("given", "gold"),
    [
        ("x > 72", "72"), ("x<72", "72"), ("72 < x", "72"), (r"x \le 72", "72"), ("x ≥ 72", "72"), ("≠72", "72"),
        (r"\text{not }72", "72"), ("not 72", "72"), ("72 is wrong", "72"), (r"72\text{ is wrong}", "72"),
        ("It isn't 72", "72"), ("1" * 250 + "5", "1" * 250 + "7"), ("72" + " " * 250 + "or 73", "72"),
    ],
)  # fmt: skip
def test_a_number_within_something_else_is_not_that_number(grader, given, gold, answer_type):
    assert grader.compare(given, gold, answer_type) != "right"


@pytest.mark.parametrize("given", [r"\$32,\!348", "32,348", "32348", r"\$32,348.00"])
def test_a_gold_in_dollars_is_met_through_its_loader(grader, given, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"problem": "What does it cost?", "answer": r"\$32,\!348"}))
    (item,) = load(TASKS["math500"], rows).items
    assert grader.grade(rf"It is $\boxed{{{given}}}$.", "eog", item.gold, "maths").right
    assert not grader.grade(r"It is $\boxed{32349}$.", "eog", item.gold, "maths").right


def test_a_gold_that_denies_something_is_met_by_the_same_words(grader):
    assert grader.compare(r"\text{not prime}", "not prime", "maths") == "right"
    assert grader.compare("1" * 250, "1" * 250, "numeric") == "right"


@pytest.mark.parametrize(
    ("text", "ended_by", "grade"),
    [
        (r"So \boxed{72}.", "eog", Grade(True, "72", "right")),
        (r"First \boxed{72}, no: \boxed{71}", "eog", Grade(False, "71", "wrong")),
        (r"<think>\boxed{1}</think> \boxed{72}", "eog", Grade(True, "72", "right")),
        (r"<think>\boxed{72}", "eog", Grade(False, None, "empty")),
        (r"<think>\boxed{72}", "max_tokens", Grade(False, None, "truncated")),
        ("It is 72", "eog", Grade(True, "72", "right")),
        ("It is 72", "max_steps", Grade(False, None, "truncated")),
        (r"It is \boxed{72}, as", "context", Grade(True, "72", "right")),
        (r"It is \boxed{7", "timeout", Grade(False, None, "truncated")),
        ("", "eog", Grade(False, None, "empty")),
        ("No idea.", "eog", Grade(False, None, "empty")),
        (r"\boxed{}", "eog", Grade(False, None, "empty")),
        (r"\boxed{a few}", "eog", Grade(False, "a few", "unparsable")),
        (r"\boxed{60 + 12 = 72}", "eog", Grade(True, "60 + 12 = 72", "right")),
        ("It is 7200%.", "eog", Grade(True, "7200%", "right")),
    ],
)
def test_how_an_answer_did(grader, text, ended_by, grade):
    assert grader.grade(text, ended_by, "72", "numeric") == grade


def test_formulas_that_cannot_be_read_are_told_from_wrong_ones(grader):
    assert grader.grade(r"\boxed{\frac{1}{}}", "eog", r"\frac{1}{2}", "maths").outcome == "unparsable"
    assert grader.grade(r"\boxed{\frac{1}{3}}", "eog", r"\frac{1}{2}", "maths").outcome == "wrong"
    assert grader.grade(r"\boxed{" + "1+" * 600 + "1}", "eog", "x", "maths").outcome == "unparsable"


@pytest.mark.parametrize(
    ("box", "letter"),
    [
        ("B", "B"), ("(b)", "B"), (r"\text{B}", "B"), (r"\textbf{(B)}", "B"), ("B. yolk sac", "B"), ("yolk sac", "B"),
        ("amnion", "A"), (r"\text{Yolk Sac}", "B"), ("E", "E"), ("42", None), ("A or B", None), ("Answer: A", "A"),
        ("", None),
    ],
)  # fmt: skip
def test_the_letter_in_a_box(box, letter):
    assert letter_of_box(box, ("amnion", "yolk sac")) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (C), not A.", "C"), ("A is wrong, so it must be D.", "D"), ("It's a mess.", None),
        ("the correct choice is **B**.", "B"), ("Answer: A\nOption B is no answer", "A"), ("A bird.", "A"),
        ("", None),
    ],
)  # fmt: skip
def test_the_letter_of_a_text(text, letter):
    assert letter_of_text(text) == letter


@pytest.mark.parametrize(
    "text",
    [
        "So (B) is correct. I hope this helps!", "It must be B, since I showed that.", "The answer is B. I am sure.",
        "The correct option is B. That is the best answer I can give.", "The answer is option B.", "Answer: **(B)**",
        "The answer is B, because option A ignores friction and option C has the wrong sign.",
        "The answer is B.\n\nOption A is wrong.", "The answer is\n\nB\n", "I choose option B", "B. I. Newton, 1687",
    ],
)  # fmt: skip
def test_the_letter_of_one_of_four_options_is_not_i_and_not_that_of_an_explanation(text):
    assert letter_of_text(text, 4) == "B"


def test_a_letter_beyond_the_options_may_be_the_text_of_one(grader):
    options = ("1", "e", "0", r"\pi")
    assert grader.grade(r"\boxed{e}", "eog", "B", "choice", options).right
    assert grader.grade("It is D. I checked it.", "eog", "D", "choice", options).right


def test_a_long_space_in_a_text_costs_nothing():
    assert letter_of_text("The answer is" + " " * 100_000 + "?") is None


@pytest.mark.parametrize("box", ["B", "(b)", r"\text{B}", "yolk sac"])
def test_votes_for_a_choice_are_votes_for_its_letter(grader, box):
    graded = grader.grade(rf"\boxed{{{box}}}", "eog", "B", "choice", ("amnion", "yolk sac"))
    assert (graded.extracted, graded.outcome) == ("B", "right")


def test_a_choice_without_a_letter_is_unparsable(grader):
    assert grader.grade(r"\boxed{42}", "eog", "B", "choice").outcome == "unparsable"
    assert grader.grade("The answer is (B).", "max_tokens", "B", "choice").outcome == "truncated"


def test_a_thousand_hostile_expressions_cost_no_hang_and_run_no_code(tmp_path):
    sentinel = tmp_path / "sentinel"
    expressions = hostile.expressions(random.Random(0), str(sentinel))
    assert len(expressions) == 1000
    with Grader(seconds=0.1) as grader:
        grader.compare("x", "y", "maths")  # starts the worker
        began = time.monotonic()
        for text in expressions:
            before = time.monotonic()
            grade = grader.grade(f"\\boxed{{{text}}}", "eog", "x^2+1", "maths")
            assert time.monotonic() - before < 2, text[:100]
            assert not grade.right, text[:100]
        for text in hostile.code(str(sentinel)):
            grader.compare("x", text, "maths")  # a gold answer is data too
        grader._maths.seconds = 60.0  # the same worker, and time enough for what it can do
        assert grader.compare("1+x^2", "x^2+1", "maths") == "right"
    assert not sentinel.exists()
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("text", ["5^{5^{5^{5^5}}}", "(10^7)!", "9^{9^9}"])
def test_what_hangs_ends_within_the_limit_and_costs_one_answer(text):
    with Grader(seconds=1.0) as grader:
        grader.compare("x", "y", "maths")
        before, worker = time.monotonic(), grader._maths._process
        assert grader.compare(text, "3+x", "maths") == "timeout"
        assert time.monotonic() - before < 2
        assert grader._maths._process is worker, "it ended the comparison itself"
        assert grader.compare("x+3", "3+x", "maths") == "right"


def test_a_worker_that_dies_is_started_again():
    with Grader() as grader:
        assert grader.compare("x+3", "3+x", "maths") == "right"
        worker = grader._maths._process
        assert worker
        maths._kill(worker)
        worker.wait()
        assert grader.compare("x+3", "3+x", "maths") == "right"
    assert grader._maths._process is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_crash_costs_one_answer():
    with Grader() as grader:
        assert grader.compare("x+3", "3+x", "maths") == "right"
        for _ in range(2):
            assert grader._maths._process
            pid = grader._maths._process.pid
            children = Path(f"/proc/{pid}/task/{pid}/children")
            os.kill(int(children.read_text()), signal.SIGSEGV)
            verdicts = [grader.compare("x+3", "3+x", "maths") for _ in range(3)]
            assert verdicts[1:] == ["right", "right"]


def test_nothing_starts_for_what_quick_rules_decide():
    with Grader() as grader:
        assert grader.compare("72.0", "72", "maths") == "right"
        assert grader.compare(r"\dfrac{x}{2}", r"\frac{x}{2}", "maths") == "right"
        assert grader._maths._process is None


@pytest.mark.parametrize("text", ["__import__('os')", "2**9", "f(1)", "a.b", ""])
def test_text_that_reaches_sympy_is_not_evaluated(text):
    with pytest.raises(ValueError, match="could not convert"):
        maths_worker.read_word(text)


@pytest.mark.parametrize(
    ("event", "details"),
    [
        ("open", ("/x", "w", os.O_WRONLY | os.O_CREAT)), ("open", ("/x", "a", os.O_RDWR)), ("os.system", ("ls",)),
        ("subprocess.Popen", ("ls", [], None, None)), ("os.exec", ("ls", [], {})), ("socket.connect", (None, "")),
        ("os.remove", ("/x", -1)), ("os.posix_spawn", ("ls", [], {})),
    ],
)  # fmt: skip
def test_the_worker_may_start_nothing_and_write_nothing(event, details):
    with pytest.raises(PermissionError):
        maths_worker.refuse(event, details)


def test_the_worker_may_import():
    maths_worker.refuse("open", ("/x.py", "r", os.O_RDONLY | os.O_CLOEXEC))
    maths_worker.refuse("os.listdir", ("/",))
    maths_worker.refuse("import", ("sympy", None, None, None, None))


@pytest.mark.parametrize(
    ("text", "gold"),
    [(r"So \boxed{x^2+1}.", "1+x^2"), (r"\boxed{2\sqrt{3}}", r"$\sqrt{12}$"), ("It is 7.", "7")],
)
def test_a_text_alone_is_graded_with_formulas_compared(text, gold, grader):
    assert grader.is_right(text, gold)
    assert not grader.is_right(text, gold + "9")
    assert is_right(text, gold) != is_formula(gold)


@pytest.mark.parametrize(
    ("text", "gold"), [("So 5 + 7 = 12", "12"), ("<think>So it is 12.", "12"), ("x^2+1", "1+x^2")]
)
def test_a_text_that_was_cut_short_has_no_answer_but_in_a_box(text, gold, grader):
    assert not grader.is_right(text, gold, "max_tokens")
    assert grader.known_right(text, gold, "context") is False
    assert grader.is_right(rf"\boxed{{{gold}}} and", gold, "max_tokens")


@pytest.mark.parametrize(
    "gold", ["1,234", "-3", "50\\%", r"\frac{1}{2}", "$18", "C", "no solution", r"\text{East}", ""]
)
def test_numbers_words_and_letters_are_no_formulas(gold, monkeypatch):
    monkeypatch.setattr("rsd_cli.evaluation.maths._start", lambda: pytest.fail("quick rules do"))
    assert not is_formula(gold)
    with Grader() as grader:
        assert grader.is_right(rf"\boxed{{{gold}}}", gold) == bool(gold)


def test_without_math_verify_formulas_are_refused_and_numbers_are_not(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    need_maths("numeric")
    need_maths("choice")
    with pytest.raises(RSDError) as refusal:
        need_maths("maths")
    assert "rsd-cli[eval]" in refusal.value.hint


def test_a_worker_that_cannot_start_is_an_error_with_a_hint(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with Grader() as grader, pytest.raises(RSDError) as refusal:
        grader.compare("x+3", "3+x", "maths")
    assert "rsd-cli[eval]" in refusal.value.hint


def test_the_worker_looks_for_its_packages_where_this_process_does(tmp_path, monkeypatch):
    (tmp_path / "sympy.py").write_text("raise ImportError('half an installation')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with Grader() as grader, pytest.raises(RSDError, match="does not start"):
        grader.compare("x+3", "3+x", "maths")


def test_a_worker_that_cannot_start_is_tried_once_and_its_formulas_are_not_graded(monkeypatch):
    starts = []
    monkeypatch.setattr("rsd_cli.evaluation.maths._start", lambda: starts.append("try"))
    with Grader() as grader:
        assert grader.known_right("So it is 71.", "72") is False
        assert not starts, "numbers need none"
        assert [grader.known_right(rf"\boxed{{{text}}}", "x+3") for text in ("3+x", "x+3", "4")] == [
            None,
            True,
            None,
        ]
    assert starts == ["try"]


def test_a_run_with_formulas_is_refused_where_the_worker_cannot_start(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    need_maths("numeric")
    with pytest.raises(RSDError, match="does not start"):
        need_maths("maths")


def test_a_time_limit_is_positive():
    with pytest.raises(ValueError, match="no time limit"):
        Grader(seconds=0)


@pytest.mark.parametrize(
    ("answer", "gold", "with_it", "without"),
    [
        (r"\boxed{\sqrt{8}}", r"2\sqrt{2}", True, None),
        (r"\boxed{\sqrt{2}}", r"2\sqrt{2}", False, None),
        (r"\boxed{2 \sqrt{2}}", r"2\sqrt{2}", True, True),
        ("So it is 72.", "72", True, True),
        (r"\boxed{71}", "72", False, False),
    ],
)
def test_what_only_math_verify_could_tell_is_not_known_without_it(
    answer, gold, with_it, without, monkeypatch
):
    with Grader() as grader:
        assert grader.known_right(answer, gold) is with_it
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
        assert grader.known_right(answer, gold) is without
