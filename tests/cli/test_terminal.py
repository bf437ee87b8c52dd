"""`rsd ask`, and a batch, on a terminal: pexpect gives it one, pyte shows what a person would see."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.cli.command import ENTRY

pexpect = pytest.importorskip("pexpect")
pyte = pytest.importorskip("pyte")

QUESTION = "What is 1 + 2? Natalia sold clips to 48 of her friends in April, and half as many in May."


class Seen:
    """The bytes of a run, and a screen much wider than the terminal was, on which nothing can wrap."""

    def __init__(self, raw: bytes, width: int = 1000) -> None:
        self.raw = raw
        self.screen = pyte.HistoryScreen(width, 24, history=10_000)
        pyte.ByteStream(self.screen).feed(raw)

    def lines(self) -> list[str]:
        above = [
            "".join(line[x].data for x in range(self.screen.columns)) for line in self.screen.history.top
        ]
        return [line.rstrip() for line in [*above, *self.screen.display]]

    def text(self) -> str:
        return "\n".join(self.lines())


def on_a_terminal(rsd, *arguments, columns=80, rows=24, env=None, shell=None):
    return run_on_a_terminal(
        rsd, "ask", QUESTION, *arguments, columns=columns, rows=rows, env=env, shell=shell
    )


def run_on_a_terminal(rsd, *arguments, columns=80, rows=24, env=None, shell=None):
    command = [*ENTRY, *arguments]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    terminal = pexpect.spawn(
        command[0], command[1:], env=rsd.env(TERM="xterm-256color", **(env or {})), cwd=str(rsd.home),
        dimensions=(rows, columns), timeout=60,
    )  # fmt: skip
    terminal.setecho(False)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0, terminal.before
    return Seen(terminal.before)


LIMITS = ("--threads", "1", "-n", "90", "--max-steps", "5", "--threshold", "0.34")


@pytest.mark.parametrize("columns", [40, 200])
def test_no_line_is_wider_than_the_terminal(columns, rsd):
    seen = on_a_terminal(rsd, *LIMITS, columns=columns)
    assert max(map(len, seen.lines())) <= columns
    assert "Natalia" in seen.text()


def test_steps_authors_and_the_summary_are_shown(rsd):
    trace = rsd.home / "trace.jsonl"
    seen = on_a_terminal(rsd, *LIMITS, "--trace", str(trace)).text()
    record = json.loads(trace.read_text())
    for author, letter in (("draft", "D"), ("target", "T")):
        steps = sum(step["author"] == author for step in record["steps"])
        assert steps
        assert f"{letter} {steps} step" in seen
    assert "compute" in seen
    assert "written by" in seen


def test_the_cursor_is_shown_again_at_the_end(rsd):
    raw = on_a_terminal(rsd, *LIMITS).raw
    assert raw.count(b"\x1b[?25h") >= raw.count(b"\x1b[?25l") > 0
    assert raw.rfind(b"\x1b[?25h") > raw.rfind(b"\x1b[?25l")


def test_no_color_removes_colour(rsd):
    coloured = re.compile(rb"\x1b\[[0-9;]*\b(?:3[0-7]|38;[25];[0-9;]*|9[0-7])[;m]")
    assert coloured.search(on_a_terminal(rsd, *LIMITS).raw)
    assert not coloured.search(on_a_terminal(rsd, *LIMITS, "--no-color").raw)


def test_quiet_shows_the_answer_alone(rsd):
    seen = on_a_terminal(rsd, *LIMITS, "--quiet")
    assert "written by" not in seen.text()
    assert "Natalia" not in seen.text()
    assert b"\x1b[?25l" not in seen.raw


def test_steps_are_shown_on_stderr_while_stdout_goes_to_a_file(rsd):
    seen = on_a_terminal(rsd, *LIMITS, shell="> answer.txt")
    assert "written by" in seen.text()
    answer = (rsd.home / "answer.txt").read_bytes()
    assert answer.strip()
    assert b"\x1b" not in answer


def test_a_file_for_stderr_gets_no_escape_codes(rsd):
    seen = on_a_terminal(rsd, *LIMITS, shell="2> log.txt")
    assert b"\x1b" not in (rsd.home / "log.txt").read_bytes()
    assert seen.text().strip(), "the answer is on the terminal"


def test_escape_codes_of_a_question_are_shown_and_not_obeyed(rsd):
    terminal = pexpect.spawn(
        ENTRY[0], [*ENTRY[1:], "ask", "a\x1b]0;evil\x07b\x1b[2Jc", "-n", "10"],
        env=rsd.env(TERM="xterm"), cwd=str(rsd.home), dimensions=(24, 80), timeout=60,
    )  # fmt: skip
    terminal.expect(pexpect.EOF)
    assert b"\x1b]0;evil" not in terminal.before
    assert b"\x1b[2J" not in terminal.before
    assert b"evil" in terminal.before
    terminal.close()


def test_json_of_a_solutions_scores_is_not_obeyed_either(rsd):
    row = {"id": "a\u009b2Jb\u202ec", "problem": "What is 1 + 2?", "steps": ["It is 3."]}
    (rsd.home / "solutions.jsonl").write_text(json.dumps(row))
    seen = run_on_a_terminal(rsd, "prm", "score", "solutions.jsonl", "--prm", "opinion", "--json")
    assert r"a\u009b2Jb\u202ec" in seen.raw.decode()


def test_a_tiny_terminal_is_enough(rsd):
    seen = on_a_terminal(rsd, *LIMITS, columns=20, rows=5)
    assert max(map(len, seen.lines())) <= 20


def test_no_question_on_a_terminal_is_refused_at_once(rsd):
    started = time.monotonic()
    terminal = pexpect.spawn(
        ENTRY[0], [*ENTRY[1:], "ask"], env=rsd.env(TERM="xterm"), cwd=str(rsd.home), timeout=20
    )
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 2
    assert b"error: No question is given." in terminal.before.replace(b"\x1b[1;31m", b"").replace(
        b"\x1b[0m", b""
    )
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("shell", [None, "| cat"])
def test_no_picture_of_a_batch_is_drawn_over_its_answers(shell, rsd):
    """Behind a pipe, too, answers can come to the screen: `| jq -r .answer`."""
    lines = [json.dumps({"id": f"row{i}", "question": f"What is {i} + 1?"}) for i in range(12)]
    (rsd.home / "questions.jsonl").write_text("\n".join(lines))
    options = ("--trio", "tiny", "--max-tokens", "10", "--threads", "1", "--format", "plain")
    seen = run_on_a_terminal(rsd, "batch", "questions.jsonl", "-o", "-", *options, shell=shell, rows=50)
    assert b"\x1b[?25l" not in seen.raw
    assert [seen.text().count(f'"id": "row{i}"') for i in range(12)] == [1] * 12
    assert "12 answered" in seen.text()


@pytest.mark.parametrize("strategy", ["majority@3", "process-best-of-n@3", "judge", "glimpse"])
def test_of_several_candidates_and_answers_the_steps_that_stay_are_shown(strategy, rsd):
    trace = rsd.home / "trace.jsonl"
    options = ("--strategy", strategy, "--temperature", "0.8", "--trace", str(trace))
    seen = on_a_terminal(rsd, *LIMITS, *options).text()
    record = json.loads(trace.read_text())
    for number, step in enumerate(record["steps"], start=1):
        letter = step["author"][0].upper()
        assert re.search(rf"^ *{letter} +{number}  (?!…)", seen, re.MULTILINE), (number, seen)
    assert f"strategy {strategy}" in seen
    assert "written by" in seen
