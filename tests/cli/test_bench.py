"""`rsd bench` on tiny models: what it measures, not how fast."""

import json
import math
import os
import signal
import sys

import pytest

from rsd_cli.cli.bench import output_of
from rsd_cli.errors import RSDError
from tests.cli.command import ended

KEYS = {
    *("decode_vs_bare", "decode_vs_high_level", "rsd_vs_parts", "cpu_help_ms", "first_token_vs_bare"),
    *("speeds", "question", "first_token", "high_level"),
}


def test_the_last_line_is_one_json_object_with_every_ratio(rsd):
    done = rsd("bench", "--quick", "--trio", "endless", "--threads", "1")
    assert done.code == 0, done.err
    figures = json.loads(done.out.splitlines()[-1])
    assert set(figures) >= KEYS
    ratios = [figures[key] for key in KEYS if key.endswith(("_bare", "_level", "_parts"))]
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios if isinstance(ratio, float))
    assert figures["question"]["record"]["usage"]["draft"]["generated"] > 0
    (verdict,) = figures["verdicts"]
    assert verdict["seats"] == 1
    assert verdict["time"]["predicted"] > 0
    assert verdict["time"]["measured"] == pytest.approx(
        figures["question"]["seconds"] / figures["question"]["target_seconds"]
    )
    assert f"with 1 seat: {verdict['sentences'][0]}" in done.out
    assert not (rsd.home / "rsd_home" / "chats").exists(), "its questions are no conversations of the user's"


@pytest.mark.parametrize(
    ("written", "message", "hint"),
    [
        (
            "a warning\\nerror: No trio is called 'x'.\\nhint: Did you mean y?",
            "No trio is called 'x'.",
            "Did you mean y?",
        ),
        ("Traceback\\nValueError: no", "ValueError: no", ""),
        ("", "exit code 3", ""),
    ],
)
def test_a_process_that_fails_is_an_error_with_its_last_words(written, message, hint, tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text(f'import sys\nsys.stderr.write("{written}")\nsys.exit(3)\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RSDError) as failed:
        output_of([sys.executable, "-m", "failing"])
    assert failed.value.message == f"failing, which rsd bench started, failed: {message}"
    assert failed.value.hint == hint


@pytest.mark.parametrize("seats", ["1,2", "2,1,2"])
def test_only_the_roles_and_seats_that_are_asked_for_are_measured(seats, rsd):
    """Upwards, each once: the verdict takes speeds between them from their neighbours."""
    done = rsd("bench", "--quick", "--trio", "tiny", "--roles", "target", "--seats", seats, "--threads", "1")
    assert done.code == 0, done.err
    figures = json.loads(done.out.splitlines()[-1])
    assert list(figures["speeds"]) == ["target"]
    assert [speed["seats"] for speed in figures["speeds"]["target"]] == [1, 2]
    assert figures["rsd_vs_parts"] is None


@pytest.mark.parametrize(
    "said",
    [
        "draft+target   1 seats",  # then comes the high-level class
        "decode against the high-level class",  # then the question
        "with 1 seat",  # then processes of their own
    ],
)
def test_ctrl_c_ends_it_wherever_it_is(said, rsd):
    """The first bytecode behind the signal may be that of a question whether a decode is to end."""
    process = rsd.start("bench", "--quick", "--trio", "endless", "--threads", "1")
    while not (line := process.stdout.readline().decode()).startswith(said):
        assert line
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = ended(process)
    assert (code, err) == (130, "")
    assert not out.startswith(b"{")


@pytest.mark.parametrize("arguments", [("--seats", "0"), ("--seats", "many"), ("--roles", "drafts")])
def test_a_wrong_list_is_a_usage_error(rsd, arguments):
    rsd("bench", *arguments).refused(2, arguments[1])
