"""What `rsd ask` refuses: one sentence, one hint, the exit code of the table, and never a hang."""

from __future__ import annotations

import os

import pytest

from tests import tiny_gguf
from tests.cli.command import declared, trio

QUESTION = "What is 1 + 2?"


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["-"], b""),
        ([], b""),
        ([""], b""),
        ([" \n\t "], b""),
        (["-"], b" \r\n\xc2\xa0"),
        (["", "--json"], b"\n"),
    ],
)
def test_an_empty_question_is_refused(arguments, stdin, rsd):
    rsd("ask", *arguments, stdin=stdin).refused(2, "empty")


@pytest.mark.parametrize(
    ("stdin", "place", "byte"),
    [
        (b"ab\xffcd", "byte 3 ", "0xff"),
        (b"\xff", "byte 1 ", "0xff"),
        ("é".encode()[:1], "byte 1 ", "0xc3"),
        (b"\xef\xbb\xbfab\xfe", "byte 6 ", "0xfe"),
        ("hé".encode("utf-16"), "byte 1 ", "0xff"),
    ],
)
def test_stdin_that_is_not_utf_8_is_refused_with_the_byte(stdin, place, byte, rsd):
    rsd("ask", "-", stdin=stdin).refused(2, place, byte, "iconv")


def test_an_argument_of_undecodable_bytes_is_refused(rsd):
    rsd("ask", b"caf\xe9 \xff").refused(2, "not", "UTF-8")


@pytest.mark.parametrize("letter", ["a", "é"])
def test_an_endless_question_is_refused_for_its_length(letter, rsd):
    rsd("ask", "-", stdin=letter.encode() * 4_100_001).refused(2, "longer than 4,000,000 bytes")


def test_a_question_longer_than_the_context_says_both_numbers(rsd):
    error = rsd("ask", "-", stdin=b"Hello World " * 2000).refused(2, "too many for its context of 2,048")
    assert "tokens long" in error
    assert "--ctx" in error


def test_a_conversation_longer_than_the_context_does_not_blame_the_question(rsd):
    assert rsd("ask", "Hello World " * 100, "-n", "5").code == 0
    for command, stdin in ((("ask", "-c", "And 2?"), None), (("chat", "--resume"), b"And 2?\n")):
        told = rsd(*command, "--ctx", "256", stdin=stdin)
        assert told.code == (2 if "ask" in command else 1)
        assert "The conversation with this question " in told.err
        assert "/compact" in told.err
        assert "--ctx" in told.err
        if "ask" in command:  # where no model is there yet that the conversation could be measured with
            assert "Drop its oldest turns (in a chat with /compact), or raise --ctx" in told.err


def test_a_question_that_only_the_target_cannot_hold_is_refused_too(rsd, tiny):
    files = {"draft": tiny(seed=1), "short": tiny("spm", n_ctx_train=256)}
    rsd.write_models(declared(files, {"tiny": trio("draft", "short", threshold=1.0)}))
    error = rsd("ask", "-", "--trio", "tiny", "--system", "", stdin=b"Hello World " * 300).refused(2, "256")
    assert "target" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trio", "judgd"], ["'judgd'", "judged"]),
        (["--strategy", "rds"], ["'rds'", "rsd"]),
        (["--draft", "drft"], ["'drft'", "draft"]),
        (["--prm", "opinon"], ["'opinon'", "opinion"]),
        (["--kv-type", "q5"], ["'q5'", "q8_0"]),
        (["--ctx", "4096"], ["4,096", "2,048"]),
        (["--gpu-layers", "drft=3"], ["drft", "draft"]),
        (["--gpu-layers", "many"], ["many"]),
        (["--gpu-layers", "-5"], ["--gpu-layers -5", "-1 for all"]),
        (["--gpu-layers", "draft=-2"], ["--gpu-layers -2"]),
    ],
)
def test_an_option_that_cannot_be_is_refused_with_a_way_out(arguments, words, rsd):
    rsd("ask", QUESTION, "-n", "5", *arguments).refused(2, *words)


HELP = "hint: `rsd ask --help`"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threshold", "1.5"], ["--threshold '1.5' should be less than or equal to 1.", HELP]),
        (["--max-tokens", "0"], ["--max-tokens '0'", HELP]),
        (["--threads", "-1"], ["--threads '-1'", HELP]),
        (["--threads", "9999"], ["--threads '9999'", HELP]),
        (["--batch-size", "0"], ["--batch-size '0'", HELP]),
        (["--ctx", "2147483648"], ["--ctx '2147483648'", HELP]),
        (["--threshold", "inf"], ["--threshold 'inf'", HELP]),
        (["--threshold", "nan"], ["--threshold 'nan'", HELP]),
        (["--threshold", "high"], ["--threshold 'high' should be a valid number.", HELP]),
        (["--temperature", "nan"], ["--temperature 'nan'", HELP]),
        (["--temperature", "inf"], ["--temperature 'inf'", HELP]),
        (["--target-share", "inf"], ["--target-share 'inf'", HELP]),
        (["--strategy", "gsi", "--beta", "inf"], ["--beta 'inf'", HELP]),
        (["--strategy", "gsi", "--beta", "nan"], ["--beta 'nan'", HELP]),
        (["--tempratur", "1"], ["rsd ask has no option --tempratur.", "hint: Did you mean"]),
        (["--zzz"], ["rsd ask has no option --zzz.", HELP]),
        (
            ["a second question"],
            ["(a second question)", "hint: A question of several words stands in quotes"],
        ),
        (["--threads"], ["'--threads' requires an argument.", "hint: "]),
        (["--json=3"], ["'--json' does not take a value.", "hint: "]),
    ],
)
def test_an_impossible_number_or_flag_is_a_usage_error(arguments, words, rsd):
    assert "Usage:" not in rsd("ask", QUESTION, *arguments).refused(2, *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["batch", "f.jsonl"], ["'--output'", "hint: `rsd batch --help`"]),
        (["batch", "f.jsonl", "-o", "a.jsonl", "--max-seconds", "inf"], ["--max-seconds 'inf'", "hint: "]),
        (["chat", "--beta", "inf"], ["--beta 'inf'", "hint: `rsd chat --help`"]),
        (["models", "shw"], ["No such command 'shw'.", "hint: Did you mean 'show'?"]),
        (["zzz"], ["No such command 'zzz'.", "hint: `rsd --help`"]),
        (["models"], ["rsd models needs a command.", "hint: `rsd models --help`"]),
        (["ask", "What", "is", "12 x 12"], ["(is 12 x 12)", 'in quotes: rsd ask "What is 3 x 4?"']),
        (["ask", "-5 + 3?"], ["no option -5", "stands behind --: rsd ask -- '-5 + 3?'"]),
        (["ask", "-5+3"], ["rsd ask -- -5+3"]),
        (["ask", "--systm=Be brief."], ["no option --systm", "Did you mean --system or "]),
        (["ask", "--x = 3, so?"], ["rsd ask -- '--x = 3, so?'"]),
        (["eval"], ["'tasks'", "hint: `rsd eval --help`"]),
        (
            ["eval", "gsm8k", "--threshold", "0.5"],
            ["has no option --threshold", "rsd/threshold=0.5 in --strat"],
        ),
        (["eval", "gsm8k", "--target-share=0.2"], ["has no option", "rsd/target-share=0.2 in --strategies"]),
        (["eval", "gsm8k", "--beta", "3"], ["gsi/beta=3 in --strategies"]),
        (["eval", "gsm8k", "--speculative"], ["rsd/speculative=on in --strategies"]),
    ],
)
def test_a_command_line_that_says_nothing_possible_is_a_sentence(arguments, words, rsd):
    assert "Usage:" not in rsd(*arguments).refused(2, *words)


def broken(kind, folder, tiny):
    path = folder / "broken.gguf"
    good = tiny(seed=1)
    if kind == "html":
        path.write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    elif kind == "half":
        tiny_gguf.truncated(good, path, good.stat().st_size // 2)
    elif kind == "one byte short":
        tiny_gguf.truncated(good, path, -1)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "lfs pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    elif kind == "version 999":
        tiny_gguf.with_bytes(good, path, 4, (999).to_bytes(4, "little"))
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "unknown architecture":
        content = good.read_bytes().replace(b"llama", b"lambs")
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("html", "HTML"), ("half", "beyond"), ("one byte short", "beyond"), ("empty", ""), ("lfs pointer", "LFS"),
        ("version 999", "999"), ("directory", "directory"), ("fifo", ""), ("unknown architecture", "lambs"),
        ("absent", ""),
    ],
)  # fmt: skip
def test_a_file_that_is_no_whole_model_is_refused_before_llama_cpp_sees_it(kind, word, rsd, tiny, tmp_path):
    path = broken(kind, tmp_path, tiny)
    error = rsd("ask", QUESTION, "--draft", str(path), "--offline").refused(3, word)
    assert error.count(str(path)) == 1, "the file is named once"
    assert error.startswith(f"error: {path} can't be used: ")
    assert "hint: " in error


def test_a_declared_model_that_was_damaged_is_refused(rsd, tiny, tmp_path):
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(tiny(seed=1).read_bytes())
    rsd.write_models(declared({"copy": copy}, {"starter": trio("copy", "copy")}))
    assert rsd("ask", QUESTION, "-n", "5").code == 0
    tiny_gguf.with_bytes(copy, copy, -5, b"\x01")
    done = rsd("ask", QUESTION, "-n", "5")
    assert (done.code, done.stdout) == (3, b"")
    assert "sha256" in done.err
    assert "error: " in done.err.splitlines()[-2]
    assert "copy" in done.err.splitlines()[-2], "the error names the model or its file"
    assert rsd("ask", QUESTION, "-n", "5", "--no-verify").code == 0


@pytest.mark.parametrize("flag", [["--offline"], []])
def test_a_model_that_is_not_there_is_refused_at_once_offline(flag, rsd):
    """Without the flag the hub is told to stay offline, and pip to use no index."""
    (rsd.home / "models.yaml").unlink()
    done = rsd("ask", QUESTION, *flag, env={"RSD_MODELS": "", "PIP_NO_INDEX": "1"})
    assert (done.code, done.stdout) == (3, b""), done.err
    assert "Traceback" not in done.err
    error, hint = done.err.splitlines()[-2:]
    assert error.startswith("error: qwen2.5-coder-0.5b")
    assert hint.startswith("hint: ")
    models = rsd.home / "rsd_home" / "models"
    assert not models.exists() or not list(models.glob("*.gguf"))


UNSIZED = """models:
  unsized:
    unverified: nobody looked
    sources: [{kind: url, url: "http://127.0.0.1:9/unsized.gguf"}]
  gone:
    unverified: nobody looked
    sources: [{kind: path, path: /gone/model.gguf}]
  huge:
    size: 6000000000
    unverified: nobody looked
    sources: [{kind: url, url: "http://127.0.0.1:9/huge.gguf"}]
"""


def test_a_download_that_is_or_may_be_large_needs_a_word(rsd):
    rsd.write_models((rsd.home / "models.yaml").read_text().replace("models:\n", UNSIZED))
    ask = ("ask", QUESTION, "--target", "unsized")
    rsd(*ask).refused(2, "unsized (size unknown)", "--yes", "rsd models pull")
    rsd(*ask, "--draft", "huge").refused(2, "huge (6 GB), unsized (size unknown)")
    tried = rsd(*ask, "--yes")
    assert tried.code == 3
    assert "unsized could not be fetched" in tried.err
    pulled = rsd("models", "pull", "unsized")
    assert pulled.code == 3
    assert "unsized could not be fetched" in pulled.err
    rsd("ask", QUESTION, "--target", "gone").refused(3, "/gone/model.gguf")


def test_weights_of_nan_are_an_engine_error(rsd, tiny):
    rsd("ask", QUESTION, "--draft", str(tiny(nan=True))).refused(
        6, "weights are damaged", "rsd models verify"
    )


def test_a_model_without_a_template_is_refused_not_guessed(rsd, tiny):
    rsd("ask", QUESTION, "--draft", str(tiny("plain"))).refused(3, "no chat template")


def test_a_template_that_refuses_a_system_message_names_the_flag_that_helps(rsd, tiny):
    template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    path = str(tiny(template=template))
    rsd("ask", QUESTION, "--draft", path).refused(3, "no system role", "--system ''")
    assert rsd("ask", QUESTION, "--draft", path, "--system", "", "-n", "5").code == 0


@pytest.mark.parametrize("head", ["", "\n    head: gone.safetensors"])
def test_a_family_without_its_head_is_refused_before_any_model_loads(rsd, head):
    text = (rsd.home / "models.yaml").read_text()
    rsd.write_models(text.replace("family: judge", f"family: value-head\n    layout: skywork{head}"))
    rsd("ask", QUESTION, "--trio", "judged", "-n", "5").refused(3, "value-head", "rsd prm import")


def test_debug_shows_where_an_error_comes_from(rsd):
    done = rsd("ask", QUESTION, "--trio", "absent", "--debug")
    assert done.code != 0
    assert "Traceback" in done.err
    assert "UsageError" in done.err
    assert rsd("--debug", "ask", QUESTION, "--trio", "absent").err.count("Traceback") == 1


def test_an_error_leaves_nothing_but_an_empty_trace(rsd):
    trace = rsd.home / "trace.jsonl"
    rsd("ask", QUESTION, "--trio", "absent", "--trace", str(trace)).refused(2, "absent")
    assert not trace.exists() or trace.read_bytes() == b""


@pytest.mark.parametrize("flag", [(), ("--no-color",)])
def test_an_error_has_colour_where_that_is_wanted(flag, rsd):
    done = rsd("ask", "", *flag, env={"FORCE_COLOR": "1"})
    assert done.code == 2
    assert "error:" in done.err
    assert ("31m" in done.err) == (not flag)
