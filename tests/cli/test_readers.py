"""Readers that leave before the command ends: of progress nobody is missed, and of an answer it is enough."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import ENTRY

FULL = Path("/dev/full")
BATCH = ("batch", "q.jsonl", "-o", "a.jsonl", "--trio", "tiny", "--threads", "1", "-n", "20")


@pytest.fixture
def questions(rsd):
    """The second of which can't be asked, which is told as it happens."""
    lines = [{"id": f"q{i}", "question": f"What is {i} + 1?" if i != 1 else ""} for i in range(12)]
    (rsd.home / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {line["id"] for line in lines}


@pytest.fixture
def unread(rsd):
    """unread(command, stdout=…, stderr=…): run with pipes that nobody reads for those that are True."""

    def run(command, *, stdout=False, stderr=False, **more):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            return subprocess.run(
                command, env=rsd.env(), cwd=rsd.home, stdin=subprocess.DEVNULL, timeout=60, check=False,
                stdout=writing if stdout else subprocess.PIPE, stderr=writing if stderr else subprocess.PIPE,
                **more,
            )  # fmt: skip
        finally:
            os.close(writing)

    return run


@pytest.mark.parametrize("stdout", [False, True])
def test_a_batch_goes_on_when_nobody_reads_its_progress(stdout, unread, rsd, questions):
    done = unread([*ENTRY, *BATCH], stderr=True, stdout=stdout)
    assert done.returncode == 1, "a row failed"
    answers = [json.loads(line) for line in (rsd.home / "a.jsonl").read_text().splitlines()]
    assert {answer["custom_id"] for answer in answers} == questions


def _full():
    return os.open(FULL, os.O_WRONLY)


def _hung_up():
    """A terminal that was closed."""
    behind, terminal = os.openpty()
    os.close(behind)
    return terminal


@pytest.mark.skipif(not FULL.exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("opened", [_full, _hung_up])
def test_a_batch_goes_on_when_its_progress_cannot_be_written(opened, rsd, questions):
    stderr = opened()
    try:
        done = subprocess.run(
            [*ENTRY, *BATCH, "--summary", "s.json"], env=rsd.env(TERM="xterm"), cwd=rsd.home, timeout=60,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, check=False,
        )  # fmt: skip
    finally:
        os.close(stderr)
    assert done.returncode == 1, "a row failed"
    answers = [json.loads(line) for line in (rsd.home / "a.jsonl").read_text().splitlines()]
    assert {answer["custom_id"] for answer in answers} == questions
    assert (rsd.home / "s.json").exists()


@pytest.mark.skipif(not FULL.exists(), reason="needs Linux's /dev/full")
def test_what_succeeds_does_so_with_a_full_disk_for_stderr(rsd):
    command = [*ENTRY, "batch", "-", "-o", "a.jsonl", "--trio", "tiny"]
    with FULL.open("wb") as full:
        done = subprocess.run(
            command,
            env=rsd.env(),
            cwd=rsd.home,
            stdin=subprocess.DEVNULL,
            stderr=full,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0


def test_an_evaluation_goes_on_when_nobody_reads_its_progress(unread, rsd):
    rows = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(3)]
    (rsd.home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = (
        "eval",
        "gsm8k",
        "--data",
        "rows.jsonl",
        "--strategies",
        "draft,target",
        "-n",
        "20",
        "-o",
        "out",
    )
    done = unread([*ENTRY, *command, "--trio", "tiny", "--threads", "1"], stderr=True)
    assert done.returncode == 0
    assert b"target" in done.stdout
    assert (rsd.home / "out" / "report.html").exists()


def test_an_error_keeps_its_exit_code_when_nobody_reads_it(unread):
    assert unread([*ENTRY, "ask", "What?", "--trio", "none"], stderr=True).returncode == 2
    assert unread([*ENTRY, "nonsense"], stderr=True).returncode == 2


@pytest.mark.parametrize("arguments", [("models", "list"), ("ask", "What?", "--trio", "tiny", "-n", "5")])
def test_an_answer_that_is_not_read_is_no_error(arguments, unread):
    done = unread([*ENTRY, *arguments], stdout=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_another_pipe_that_breaks_is_an_error(unread):
    script = """
import rsd_cli.cli.app
def broken(**_): raise BrokenPipeError
rsd_cli.cli.app.app = broken
from rsd_cli.__main__ import main
main()
"""
    done = unread([sys.executable, "-c", script])
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: ")
