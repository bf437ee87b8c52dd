"""A batch on a terminal and off it, and what it came to."""

import io
import itertools
import re

import pytest
from rich.console import ConsoleDimensions

from rsd_cli.batch.answers import Answered
from rsd_cli.batch.tally import Tally
from rsd_cli.decoding.events import Kept, Streamed
from rsd_cli.display import batch
from rsd_cli.display.batch import BatchDisplay, watching
from rsd_cli.display.batch_summary import show_summary
from rsd_cli.display.live import LiveRegion
from rsd_cli.records import Flops, ModelId, Rejected, Role
from tests.batch.made import REWRITTEN, Clock, a_record, a_row, a_step, answered, failed
from tests.display.screens import Terminal, console_on

WIDTHS = [40, 60, 160]
PAYLOAD = "\x1b[2J\x1b]52;c;cm0\x07\u202e\x9b1A\r"


@pytest.fixture
def clock():
    return Clock(1_000.0)


@pytest.fixture
def tally(clock):
    tally = Tally(clock, total=1_000, skipped=490, failed_before=2)
    clock.now += 20
    for _ in range(9):
        tally.add(answered("72", gold="#### 72"))
    tally.add(failed())
    return tally


@pytest.fixture
def display(tally):
    return BatchDisplay(tally)


def drawn(display, width, height=24):
    """What a person sees of the region."""
    terminal = Terminal(width, height)
    region = LiveRegion(console_on(terminal, width, height), display.lines)
    region.start()
    region.refresh()
    shown = [line for line in terminal.shown() if line]
    region.stop()
    assert not any(terminal.shown())
    return shown


@pytest.mark.parametrize("width", WIDTHS)
def test_the_region_has_a_bar_counts_and_figures(width, display):
    display.handle(Streamed("q1", "draft", "Half of 48 is 24. " * 30))
    bar, *figures, row = drawn(display, width)
    cells = re.match(r"(━*)(─*)  ", bar)
    assert cells
    assert len(cells[1]) == len(cells[1] + cells[2]) // 2 >= 2
    assert "499 of 1,000 done" in bar
    assert row.startswith(" D  q1            1 …")
    assert row.endswith("Half of 48 is 24.")
    told = " · ".join([bar, *figures])
    counts = "499 of 1,000 done · 1 failed · 500 left · ETA 16:40 · 0.50 rows/s · 0 tokens/s"
    assert told.endswith(f"  {counts} · target 50% of steps · accepted 50% · reward 0.60 · 1 row in flight")
    assert len(figures) == {40: 4, 60: 2, 160: 1}[width]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_line_of_the_region_takes_one_line_of_the_screen(width, display):
    for i in range(8):
        display.handle(Streamed(f"{i} {PAYLOAD} 中文", "target", f"{PAYLOAD} 中文字 \n\n\t {PAYLOAD}" * 20))
    lines = display.lines(ConsoleDimensions(width, 24))
    shown = drawn(display, width)
    assert len(shown) == len(lines)
    assert [line[:3] for line in shown].count(" T ") == 4


@pytest.mark.parametrize("name", ["a\tb", pytest.param("a\nb"), pytest.param("\n\n\n\n")])
def test_an_id_takes_no_line_of_its_own(name, display):
    display.handle(Streamed(name, "draft", "text"))
    assert len(drawn(display, 60)) == 4


@pytest.mark.parametrize(("height", "rows"), [(1, 0), (4, 0), (5, 1), (7, 3), (8, 4), (50, 4)])
def test_only_a_few_rows_are_shown(height, rows, display):
    for i in range(8):
        display.handle(Streamed(f"q{i}", "draft", f"text {i}"))
    lines = display.lines(ConsoleDimensions(160, height))
    assert [line.plain for line in lines[2:]] == [f" D  q{i}            1 text {i}" for i in range(rows)]


def test_control_characters_are_made_visible(display):
    terminal = Terminal(300, 24)
    region = LiveRegion(console_on(terminal, 300, 24), display.lines)
    with region:
        display.handle(Streamed("\x1b[2J\x07\u202e", "draft", "one \x1b]52;c;cm0\x07 [bold]two[/bold]"))
        region.refresh()
        assert r" D  \x1b[2J\x07\u202e  1 one \x1b]52;c;cm0\x07 [bold]two[/bold]" in terminal.shown()
    assert not set(terminal.getvalue()) & set("\x07\x9b\u202e")
    assert "\x1b]52" not in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()


def test_a_row_shows_the_newest_of_its_step(display, tally):
    def row():
        return display.lines(ConsoleDimensions(160, 24))[2].plain

    display.handle(Streamed("q1", "draft", "In "))
    display.handle(Streamed("q1", "draft", "April,"))
    assert row() == " D  q1            1 In April,"
    display.handle(Streamed("q1", "target", "Rewritten"))
    assert row() == " T  q1            1 Rewritten"
    display.handle(Kept("q1", REWRITTEN))
    display.handle(Kept("unknown", REWRITTEN))
    display.handle(Streamed("q1", "draft", "Next"))
    assert row() == " D  q1            2 Next"
    display.handle(Streamed("q1", "draft", f" {'中' * 200} the end"))
    assert row() == f" D  q1            2 … {'中' * 65} the end"  # half a character is a space
    display.handle(Streamed("q1", "draft", "x" * 10_000))
    assert len(display.newest["q1"].text) == batch.TAIL
    display.forget("q1")
    display.forget("unknown")
    assert len(display.lines(ConsoleDimensions(160, 24))) == 2
    assert sum(tokens for _, _, tokens in tally.window.buckets) == 6


def test_of_several_samples_no_text_is_shown_and_rows_are_counted(tally):
    display = BatchDisplay(tally, samples=2)
    for name in ("q1", "q1", "q2", "q2"):
        display.handle(Streamed(name, "draft", "text"))
    lines = [line.plain for line in display.lines(ConsoleDimensions(160, 24))]
    assert len(lines) == 2
    assert lines[1].endswith(" · 2 rows in flight")


def test_a_long_id_is_shortened(display):
    display.handle(Streamed("x" * 500, "draft", "text"))
    assert " x" + "x" * 10 + "…  1 text" in display.lines(ConsoleDimensions(160, 24))[2].plain


@pytest.mark.parametrize(("done", "full"), [(0, 0), (1, 7), (2, 15), (4, 30)])
def test_the_bar_grows_with_what_is_done(done, full, clock):
    tally = Tally(clock, total=4)
    for _ in range(done):
        tally.add(answered())
    bar = BatchDisplay(tally).lines(ConsoleDimensions(160, 24))[0].plain
    assert bar.startswith("━" * full + "─" * (30 - full) + "  ")


def test_without_a_total_there_is_no_bar(clock):
    lines = BatchDisplay(Tally(clock)).lines(ConsoleDimensions(80, 24))
    assert [line.plain for line in lines] == ["0 done", "0.00 rows/s · 0 tokens/s · 0 rows in flight"]


def test_off_a_terminal_a_line_comes_every_five_seconds(tally, clock):
    file = io.StringIO()
    console = console_on(file, 40, 24, force_terminal=False)
    display = batch._Lines(tally, console=console, clock=clock)
    times = []
    for _ in range(300):
        before = file.tell()
        display.handle(Streamed("q\x1b", "draft", "text"))
        if file.tell() > before:
            times.append(clock.now)
        clock.now += 0.1
    assert len(times) == 5
    assert all(later - earlier >= 5 for earlier, later in itertools.pairwise(times))
    lines = file.getvalue().splitlines()
    assert len(lines) == len(times)
    assert all(line.startswith("499 of 1,000 done · 1 failed · 500 left · ETA ") for line in lines)
    assert all(line.endswith("1 row in flight") for line in lines)
    assert "\x1b" not in file.getvalue()


def test_a_quiet_batch_shows_nothing(tally, capsys):
    with watching(tally, 1, quiet=True, color=True) as display:
        display.handle(Streamed("q1", "draft", "text"))
        assert sum(tokens for _, _, tokens in tally.window.buckets) == 1
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_there_is_no_region(tally, capsys):
    with watching(tally, 1, quiet=False, color=True) as display:
        assert isinstance(display, batch._Lines)
        display.handle(Streamed("q1", "draft", "text"))
    assert capsys.readouterr() == ("", "")


def test_a_failure_is_folded_between_words(clock):
    terminal, tally = Terminal(40, 24), Tally(clock)
    tally.add(failed())
    BatchDisplay(tally, console=console_on(terminal, 40, 24)).fail(
        1, "q1", "The question is longer than that."
    )
    assert terminal.shown()[:2] == ["line 1, q1: The question is longer than", "that."]


def test_the_first_failures_say_why(clock):
    tally, file = Tally(clock), io.StringIO()
    console = console_on(file, 40, 24, force_terminal=False)
    display = BatchDisplay(tally, console=console)
    for number in range(1, 3 * batch.TOLD):
        tally.add(failed())
        display.fail(number, f"q{number}{PAYLOAD}", f"No room {PAYLOAD} [bold]here[/bold].")
    shown = r"\x1b[2J\x1b]52;c;cm0\x07\u202e\x9b1A\x0d"
    lines = file.getvalue().splitlines()
    assert len(lines) == batch.TOLD
    assert lines[0] == f"line 1, q1{shown}: No room {shown} [bold]here[/bold]."
    assert lines[-1].endswith("; failures from here on are only in the output")
    assert "only in the output" not in "".join(lines[:-1])


def summary(tally, *, reproducible=False, width=80, **options):
    file = io.StringIO()
    show_summary(console_on(file, width, 24, **options), tally, reproducible=reproducible)
    return file.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_summary_is_a_line_for_each_fact(width, tally):
    lines = summary(tally, width=width, force_terminal=False).splitlines()
    facts = [
        "rows      9 answered, 1 failed, 488 done before, 2 failed before, 500 left (1 context_overflow)",
        "right     9 of 9 with a known answer (100%)",
        "accepted  50% of the draft's steps, mean reward 0.60",
        "by target 50% of steps, 75% of tokens",
        "compute   50% of what the target alone needs for these texts",
        "time      20 s (draft 2.7 s, target 0.3 s, prm 0.0 s); 0.50 rows/s, 9 tokens/s",
        "promised  each row once; texts can differ a little with the rows beside them (--reproducible: never)",
    ]
    assert [line for line in lines if line in facts] == facts
    assert all(re.match(r"[a-z ]{9} \S", line) and line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [20, *WIDTHS])
def test_a_summary_has_no_padding(width, tally):
    terminal = Terminal(width, 50)
    show_summary(console_on(terminal, width, 50), tally, reproducible=True)
    plain = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())
    assert [line for line in plain.splitlines() if line.endswith("  ")] == []
    assert max(len(line) for line in plain.splitlines()) <= width
    assert "the same bytes" in " ".join(plain.split())
    assert all(re.match(r"[a-z ]{9} \S", line) for line in plain.splitlines())


def test_a_summary_tells_what_is_odd(clock):
    tally = Tally(clock)
    clock.now += 3_700
    tally.add(Answered(a_row(), (a_record(None, answer="", ended_by="max_tokens"),)))
    text = summary(tally, force_terminal=False)
    assert "of these  1 with an answer cut short, 1 with an empty one, 1 without a final one\n" in text
    assert "1:01:40 (" in text


@pytest.mark.parametrize(
    ("gold", "told"), [("x^2", "0 of 0 with"), ("72", "1 of 1 with a known answer (100%); 1")]
)
def test_a_summary_tells_of_answers_that_were_not_compared(gold, told, clock):
    tally = Tally(clock, grade=lambda _text, gold, _ended: None if gold == "x^2" else True)
    clock.now += 1
    for each in ("x^2", gold):
        tally.add(answered("72", gold=each))
    text = " ".join(summary(tally, force_terminal=False).split())
    assert f"right {told}" in text
    assert "with formulas not compared, which takes pip install --upgrade 'rsd-cli[eval]'" in text


def test_a_summary_tells_of_steps_that_the_prm_gave_no_reward(clock):
    unrewarded = a_step(author="target", reward=None, rejected=Rejected("Wrong.", None, 4))
    tally = Tally(clock)
    clock.now += 1
    tally.add(Answered(a_row(), (a_record(steps=(a_step(), unrewarded)),)))
    text = summary(tally, force_terminal=False)
    assert "50% of the draft's steps, mean reward 0.90, 1 without a reward\n" in text


def test_a_summary_of_selected_answers_has_rewards_and_no_acceptance(clock):
    tally = Tally(clock)
    clock.now += 1
    tally.add(Answered(a_row(), (a_record(steps=(a_step(),), strategy="best-of-n"),) * 2))
    text = summary(tally, force_terminal=False)
    assert "judged    mean reward 0.90\n" in text
    assert "accepted" not in text


def test_a_summary_without_answers_is_short(clock):
    tally = Tally(clock, total=1, skipped=1)
    assert summary(tally, force_terminal=False) == "rows      0 answered, 1 done before\n"


def test_a_summary_of_answers_that_were_there_has_no_speed(clock):
    tally = Tally(clock, total=1)
    tally.skip(answered("72", gold="#### 72"), failed=False)
    lines = summary(tally, force_terminal=False).splitlines()
    assert lines[:2] == ["rows      0 answered, 1 done before", "right     1 of 1 with a known answer (100%)"]
    assert not [line for line in lines if line.startswith("time") or "rows/s" in line]


@pytest.mark.parametrize(
    "steps",
    [(), (a_step(tokens=0),), (a_step(author="target", reward=None, rejected=Rejected("Wrong.", None, 4)),)],
    ids=["no step", "no token", "no reward"],
)
def test_a_summary_is_written_whatever_an_answer_lacks(steps, clock):
    tally = Tally(clock, total=1)
    clock.now += 1
    tally.add(Answered(a_row(), (a_record(steps=steps, ended_by="timeout"),)))
    assert "1 answered" in summary(tally, force_terminal=False)


def test_a_summary_says_whether_rsd_paid(clock):
    sizes: dict[Role, int] = {"draft": 10, "target": 100, "prm": 10}
    models = {role: ModelId(role, None, size) for role, size in sizes.items()}
    tally = Tally(clock)
    flops = Flops(1.0, 1.0, 1.0, 2.0 * 100 * (78 + 500))
    tally.add(Answered(a_row(), (a_record(models=models, flops=flops),) * 2))
    clock.now += 1
    text = summary(tally, width=500, force_terminal=False)
    told = [line.removeprefix("verdict   ") for line in text.splitlines() if line.startswith("verdict")]
    verdict = tally.verdict()
    assert verdict is not None
    assert told == list(verdict.sentences)
