"""Paths that no file system can tell anything of: one sentence and the code of a bad path, from every command.

A name that is too long stands for a folder that may not be searched as well, which root never meets.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rsd_cli.__main__ import _told
from tests.cli.command import declared, trio

LONG = "x" * 300
TRAIN = ("prm", "train", "q.jsonl", "--work", "work", "-o")
CALIBRATE = ("prm", "calibrate", "q.jsonl", "--trio", "tiny")


@pytest.mark.parametrize(
    "arguments",
    [
        ("merge", LONG, "-o", "whole.jsonl"),
        ("prm", "import", LONG, "-o", "h.safetensors"),
        ("prm", "import", "m", "-o", f"{LONG}.safetensors"),
        ("prm", "import", "m", "-o", f"{LONG}/h.safetensors"),
        ("prm", "convert", "m", "--base", "draft", "-o", f"{LONG}.gguf"),
        (*TRAIN, f"{LONG}.safetensors"),
        (*TRAIN, "x" * 253),  # its card has a longer name
        (*CALIBRATE, "--record", LONG),
        (*CALIBRATE, "--plot", f"{LONG}.svg"),
        (*CALIBRATE, "--plot", f"{LONG}/plot.svg"),
        ("eval", "compare", LONG, LONG),
    ],
    ids=lambda arguments: " ".join(argument[:20] for argument in arguments),
)
def test_a_path_that_cannot_be_looked_at_is_refused(arguments, rsd):
    (rsd.home / "q.jsonl").write_text('{"question": "What is 1 + 2?", "answer": "3"}\n')
    (rsd.home / "m").mkdir()
    rsd(*arguments).refused(2, "can't be looked at: File name too long.")


@pytest.mark.parametrize("arguments", [("chat", "--list"), ("models", "rm", "away")], ids=" ".join)
def test_a_home_that_cannot_be_looked_at_is_refused(arguments, rsd, tiny):
    text = declared({"draft": tiny(seed=1)}, {"tiny": trio("draft", "draft")})
    source = {"kind": "url", "url": "https://localhost/away.gguf"}
    away = f"  away: {{size: 3, sha256: {'a' * 64}, sources: [{source}]}}\n"
    rsd.write_models(text.replace("models:\n", f"models:\n{away}"))
    rsd(*arguments, env={"RSD_HOME": LONG}).refused(2, "can't be looked at: File name too long.")


def test_a_head_that_cannot_be_looked_at_is_refused(rsd):
    text = (rsd.home / "models.yaml").read_text()
    head = f"family: draft-head\n    head: {LONG}"
    rsd.write_models(text.replace("family: judge", head, 1))
    rsd("ask", "Hi", "--prm", "opinion").refused(2, "can't be looked at: File name too long.")


def test_a_threshold_that_no_file_can_take_is_refused_before_the_work(rsd):
    (rsd.home / "q.jsonl").write_text('{"question": "What is 1 + 2?"}\n')
    more = ("--trio", "math-7b", "--save")
    env = {"XDG_CONFIG_HOME": str(rsd.home / LONG), "RSD_MODELS": ""}
    rsd("prm", "calibrate", "q.jsonl", *more, env=env).refused(2, "can't be looked at", "Leave out --save")


def test_a_link_that_leads_to_itself_is_refused(rsd):
    (rsd.home / "loop").symlink_to("loop")
    rsd("ask", "Hi", "--models", "loop").refused(2, "Cannot read loop")
    (rsd.home / "a.jsonl").write_text("")
    (rsd.home / "a.jsonl.run.json").write_text('{"settings": {}}')
    rsd("merge", "a.jsonl", "-o", "loop").refused(2, "loop can't be looked at")


def home_of_nobody():
    with pytest.raises(RuntimeError) as told:
        Path("~no.such.user/x").expanduser()
    return told.value


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            PermissionError(13, "Permission denied", "/data/llama.jsonl"),
            2,
            "/data/llama.jsonl: Permission denied.",
        ),
        (OSError(28, "No space left on device", "/data/x"), 4, "No room left"),
        (OSError("libllama.so: cannot open shared object file"), 3, "llama-cpp-python can't be loaded"),
        (KeyError("draft"), 1, "Unexpected KeyError"),
        (home_of_nobody(), 2, "a user whose home is not known"),
    ],
)
def test_what_nobody_put_into_words_is_told_in_a_sentence(error, code, words):
    told = _told(error)
    assert (told.exit_code, words in str(told)) == (code, True)
