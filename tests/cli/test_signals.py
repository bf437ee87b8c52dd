"""Signals while a model writes: a clean end, a record, and the shell's exit code."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.cli.command import ENTRY, ended
from tests.cli.conftest import BIG
from tests.engine.driving import NO_END

pexpect = pytest.importorskip("pexpect")

LONG = [
    "--threads",
    "1",
    "--trio",
    "endless",
    "--ctx",
    "16000",
    "-n",
    "15000",
    "--max-steps",
    "15000",
    "--system",
    "",
]
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads Linux's /proc")


def child_of(pid: int) -> int:
    """The process that runs the command; the one that was started only waits."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.002)
    raise AssertionError("no child appeared")


def wait_until_it_writes(pid: int) -> int:
    """The working child, once its models have computed for longer than all before took: not in seconds of a clock,
    of which a busy machine gives it few."""
    child = child_of(pid)
    wait_for_mapped(child, ".gguf")
    enough = 2 * computed(child) + 0.5
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if computed(child) > enough:
            return child
        time.sleep(0.02)
    raise AssertionError("the models have not computed for long enough")


def wait_for_mapped(pid: int, name: str) -> None:
    """Until the process has a file of this name in its memory."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if name in Path(f"/proc/{pid}/maps").read_text():
            return
        time.sleep(0.005)
    raise AssertionError(f"no {name} was loaded")


def computed(pid: int) -> float:
    """The seconds of CPU time that the process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime


def the_record(trace: Path):
    lines = trace.read_text().splitlines()
    assert len(lines) == 1
    return json.loads(lines[0])


def gone(pid: int, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def trace(rsd):
    return rsd.home / "trace.jsonl"


@pytest.mark.parametrize(("key", "code", "told"), [("c", 130, False), ("d", 1, True)])
def test_ctrl_c_at_a_question_is_no_answer_to_it(key, code, told, rsd):
    source = "unverified: nobody looked\n    sources: [{kind: url, url: 'http://127.0.0.1:9/m.gguf'}]"
    models = (rsd.home / "models.yaml").read_text()
    rsd.write_models(models.replace("models:\n", f"models:\n  unsized:\n    {source}\n", 1))
    terminal = pexpect.spawn(
        ENTRY[0],
        [*ENTRY[1:], "ask", "What?", "--draft", "unsized"],
        env=rsd.env(),
        cwd=str(rsd.home),
        timeout=30,
    )
    terminal.expect_exact("Go on?")
    terminal.sendcontrol(key)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == code
    assert (b"It was not agreed to" in terminal.before) is told


def test_ctrl_c_in_an_answer_keeps_what_is_there(rsd, trace):
    command = [*ENTRY, "ask", "What is 1 + 2?", *LONG, "--trace", str(trace)]
    terminal = pexpect.spawn(
        command[0], command[1:], env=rsd.env(TERM="xterm"), cwd=str(rsd.home), dimensions=(24, 80), timeout=30
    )
    terminal.expect("draft writes")
    time.sleep(0.3)
    terminal.sendintr()
    pressed = time.monotonic()
    terminal.expect(pexpect.EOF)
    assert time.monotonic() - pressed < 10
    terminal.close()
    assert terminal.exitstatus == 130
    record = the_record(trace)
    assert record["ended_by"] == "interrupted"
    assert record["steps"]
    assert record["answer"]
    assert record["usage"]["draft"]["generated"] == sum(step["tokens"] for step in record["steps"])
    assert b"Traceback" not in (terminal.before or b"")


@pytest.mark.parametrize("to", ["the command", "its group"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_cleanly_whoever_gets_it(number, code, to, rsd, trace):
    """`kill` and Python's send_signal reach one process; timeout(1), a shell and systemd reach the group."""
    process = rsd.start("ask", "What?", *LONG, "--trace", str(trace))
    wait_until_it_writes(process.pid)
    if to == "its group":
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    returned, _, err = ended(process)
    assert returned == code
    assert "Traceback" not in err
    assert the_record(trace)["ended_by"] == "interrupted"


def test_a_hangup_ends_like_a_termination(rsd, trace):
    process = rsd.start("ask", "What?", *LONG, "--trace", str(trace))
    wait_until_it_writes(process.pid)
    os.kill(process.pid, signal.SIGHUP)
    assert ended(process)[0] == 143
    assert the_record(trace)["ended_by"] == "interrupted"


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT])
def test_what_is_ignored_for_us_stays_ignored(ignored, rsd, trace):
    """So nohup keeps a run alive whose terminal is closed, and Ctrl-C for a script spares what it put behind."""
    process = rsd.start(
        "ask",
        "What?",
        *LONG,
        "--trace",
        str(trace),
        preexec_fn=lambda: signal.signal(ignored, signal.SIG_IGN),
    )
    child = wait_until_it_writes(process.pid)
    os.killpg(process.pid, ignored)
    time.sleep(1)
    is_alive = not gone(child, 0.1)
    os.kill(process.pid, signal.SIGTERM)
    assert ended(process)[0] == 143
    assert is_alive
    assert the_record(trace)["ended_by"] == "interrupted"


def test_a_process_killed_by_the_system_is_explained(rsd, trace):
    process = rsd.start("ask", "What?", *LONG, "--trace", str(trace))
    os.kill(wait_until_it_writes(process.pid), signal.SIGKILL)
    code, out, err = ended(process)
    assert (code, out) == (4, b"")
    assert err.splitlines()[0].startswith("error: ")
    assert "memory" in err
    assert trace.read_bytes() == b""


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGBUS])
def test_a_crash_of_the_engine_is_explained(number, rsd):
    process = rsd.start("ask", "What?", *LONG)
    os.kill(wait_until_it_writes(process.pid), number)
    code, out, err = ended(process)
    assert (code, out) == (6, b"")
    assert number.name in err
    assert "hint: " in err


def test_a_model_that_is_cut_off_while_it_is_in_use_is_explained(rsd, tiny, tmp_path):
    """The weights are mapped, so what was cut off is missed at the next token."""
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(tiny(seed=4, favour=NO_END, **BIG).read_bytes())
    process = rsd.start("ask", "What?", *LONG, "--draft", str(copy), "--strategy", "draft")
    wait_until_it_writes(process.pid)
    os.truncate(copy, 4096)
    code, out, err = ended(process, 20)
    assert (code, out) == (6, b"")
    assert "a model file changed" in err


def test_no_process_stays_behind_when_the_waiting_one_is_killed(rsd):
    process = rsd.start("ask", "What?", *LONG)
    child = wait_until_it_writes(process.pid)
    process.kill()
    process.communicate(timeout=20)
    assert gone(child)


@pytest.mark.parametrize("delay", [0, 0.1])
def test_an_interrupt_while_models_load_is_no_bug(delay, rsd):
    """The loading is what is aborted: nothing was written yet."""
    process = rsd.start("ask", "What?", *LONG)
    wait_for_mapped(child_of(process.pid), "libllama")
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = ended(process)
    assert (code, out) == (130, b""), err
    assert "bug" not in err
    assert "Traceback" not in err


def test_an_interrupt_before_the_command_has_begun_is_no_bug(rsd):
    """There is a child as soon as Python itself is up; what is imported behind that takes a tenth of a second."""
    for delay in (0, 0, 0, 0.02, 0.05, 0.1):
        process = rsd.start("ask", "What?", *LONG)
        child_of(process.pid)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGINT)
        assert ended(process) == (130, b"", ""), delay
