"""Standard streams that are closed when the command begins: as if they led to /dev/null."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.cli.command import ENTRY

ASK = ("ask", "What is 1 + 2?", "--trio", "tiny", "-n", "10", "--threads", "1")


@pytest.fixture
def closing(rsd):
    """closing(redirections, *arguments): the command, started with these by a shell."""

    def run(redirections, *arguments):
        command = ["sh", "-c", f'exec "$@" {redirections}', "sh", *ENTRY, *arguments]
        return subprocess.run(
            command, env=rsd.env(), cwd=rsd.home, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
            check=False,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("redirections", ["2>&-", "<&- 2>&-"])
def test_an_answer_needs_no_stderr(closing, redirections):
    done = closing(redirections, *ASK)
    assert done.returncode == 0
    assert done.stdout.strip()


def test_an_error_has_its_exit_code_without_stderr(closing):
    assert closing("2>&-", "ask", "What?", "--trio", "none").returncode == 2
    assert closing("2>&-", "nonsense").returncode == 2


@pytest.mark.parametrize("redirections", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_number_of_a_stream(closing, redirections, rsd):
    """Files that are opened first would have what was meant for the answer, and the trace would be no JSON."""
    done = closing(redirections, *ASK, "--trace", "trace.jsonl")
    assert done.returncode == 0, done.stderr
    (line,) = (rsd.home / "trace.jsonl").read_text().splitlines()
    assert json.loads(line)["question"] == "What is 1 + 2?"
    (journal,) = (rsd.home / "rsd_home" / "chats").glob("*.jsonl")
    assert [json.loads(line)["kind"] for line in journal.read_text().splitlines()] == [
        "chat",
        "asked",
        "answered",
    ]


@pytest.mark.parametrize("arguments", [("--version",), ("models", "list"), ("--help",)])
def test_what_only_prints_succeeds_without_stdout(closing, arguments):
    done = closing(">&-", *arguments)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", [("batch", "-", "-o", "answers.jsonl"), ("chat",)])
def test_a_closed_stdin_is_an_empty_one(closing, arguments):
    closed, empty = (
        closing("<&-", *arguments, "--trio", "tiny"),
        closing("</dev/null", *arguments, "--trio", "tiny"),
    )
    assert (closed.returncode, closed.stderr) == (empty.returncode, empty.stderr)
    assert b"bug" not in closed.stderr
