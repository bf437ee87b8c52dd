"""`rsd batch` and `rsd merge` as a user runs them, on tiny models: nothing is lost, nothing is there twice."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter

import pytest

from tests import tiny_gguf
from tests.cli.command import ENTRY, declared, ended, trio, wait_for_lines

FEW = ("--trio", "tiny", "--max-tokens", "10", "--threads", "1")
SLOW = ("--trio", "endless", "--max-tokens", "60", "--max-steps", "60", "--threads", "1", "--system", "")


def rows(n, **more):
    return [{"id": f"r{i}", "question": f"What is {i} + {i * i}? Hello World", **more} for i in range(n)]


def written(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def hashed(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(path):
    return [record["custom_id"] for record in written(path)]


@pytest.fixture
def ask(rsd):
    """ask(rows): an input file of these rows, which may be dicts or bytes."""

    def write(these, name="questions.jsonl"):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in these]
        (rsd.home / name).write_bytes(b"".join(line + b"\n" for line in lines))
        return name

    return write


@pytest.fixture
def out(rsd):
    return rsd.home / "answers.jsonl"


def test_every_row_is_answered_once_in_a_form_that_openai_tools_read(rsd, ask, out):
    done = rsd("batch", ask(rows(20)), "-o", "answers.jsonl", *FEW)
    assert done.code == 0, done.err
    assert done.stdout == b""
    assert sorted(names(out)) == sorted(row["id"] for row in rows(20))
    for record in written(out):
        assert record["error"] is None
        assert record["response"]["status_code"] == 200
        body = record["response"]["body"]
        assert body["object"] == "chat.completion"
        (choice,) = body["choices"]
        assert choice["finish_reason"] in ("stop", "length")
        assert choice["message"]["role"] == "assistant"
        (sample,) = record["rsd"]["samples"]
        assert sample["answer"].strip() == choice["message"]["content"]
        assert body["usage"]["completion_tokens"] == sum(step["tokens"] for step in sample["steps"])
    assert "20 answered" in done.err
    assert "\x1b" not in done.err


def test_the_same_command_again_does_nothing(rsd, ask, out):
    command = ("batch", ask(rows(5)), "-o", "answers.jsonl", *FEW)
    rsd(*command)
    before = out.read_bytes()
    again = rsd(*command)
    assert again.code == 0
    assert out.read_bytes() == before
    assert "5 done before" in again.err


def test_new_rows_of_a_grown_file_are_answered(rsd, ask, out):
    rsd("batch", ask(rows(3)), "-o", "answers.jsonl", *FEW)
    first = out.read_bytes()
    assert rsd("batch", ask(rows(6)), "-o", "answers.jsonl", *FEW).code == 0
    assert out.read_bytes().startswith(first)
    assert sorted(names(out)) == [f"r{i}" for i in range(6)]


def test_other_settings_do_not_mix_into_a_file(rsd, ask, out):
    rsd("batch", ask(rows(3)), "-o", "answers.jsonl", *FEW)
    before = out.read_bytes()
    other = rsd("batch", ask(rows(3)), "-o", "answers.jsonl", *FEW, "--threshold", "0.9")
    other.refused(5, "threshold was 0.2, now 0.9", "--overwrite")
    assert out.read_bytes() == before
    anew = rsd("batch", ask(rows(3)), "-o", "answers.jsonl", *FEW, "--threshold", "0.9", "--overwrite")
    assert anew.code == 0
    assert sorted(names(out)) == ["r0", "r1", "r2"]


def test_a_model_file_that_was_replaced_is_another_model(rsd, ask, out, tiny):
    mine = rsd.home / "mine.gguf"
    shutil.copy(tiny(seed=1), mine)
    command = ("batch", ask(rows(3)), "-o", "answers.jsonl", *FEW, "--draft", "mine.gguf")
    assert rsd(*command).code == 0
    before = out.read_bytes()
    shutil.copy(tiny(seed=7), mine)
    rsd(*command).refused(5, "models.draft was", hashed(tiny(seed=1))[:50], hashed(tiny(seed=7))[:50])
    assert out.read_bytes() == before


def test_a_file_that_was_not_verified_counts_by_its_own_hash(rsd, ask, out, tiny):
    mine = rsd.home / "mine.gguf"
    shutil.copy(tiny(seed=1), mine)
    rsd.write_models(declared({"mine": mine}, {"tiny": trio("mine", "mine")}))
    command = ("batch", ask(rows(3)), "-o", "answers.jsonl", *FEW)
    assert rsd(*command).code == 0
    tiny_gguf.with_bytes(mine, mine, -5, b"\x01")
    rsd(*command, "--no-verify").refused(5, "models.draft was", hashed(mine)[:50])
    assert rsd(*command, "--no-verify", "--overwrite").code == 0
    for record in written(out):
        (sample,) = record["rsd"]["samples"]
        assert {model["sha256"] for model in sample["models"].values()} == {hashed(mine)}


def test_a_row_that_was_changed_since_it_was_answered_is_refused(rsd, ask, out):
    rsd("batch", ask(rows(3)), "-o", "answers.jsonl", *FEW)
    changed = [*rows(2), {"id": "r2", "question": "Something else?"}]
    rsd("batch", ask(changed), "-o", "answers.jsonl", *FEW).refused(5, "Line 3", "'r2'", "another question")


def test_ids_that_stand_twice_are_found_before_models_are_looked_for(rsd, ask, out):
    (rsd.home / "models.yaml").unlink()
    done = rsd("batch", ask([*rows(3), {"id": "r1", "question": "?"}]), "-o", "answers.jsonl", *FEW)
    done.refused(2, "Lines 2 and 4", "'r1'")
    assert not out.exists()


NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ m['content'] }}{% endfor %}"
)


@pytest.mark.parametrize("role", ["--draft", "--target"])
def test_a_model_that_can_be_asked_nothing_is_refused_before_the_first_row(role, rsd, ask, out, tiny):
    command = ("batch", ask(rows(3)), "-o", "answers.jsonl", *FEW, "--overwrite")
    rsd(*command, role, str(tiny("plain"))).refused(3, "no chat template", "instruct model")
    refusing = str(tiny(template=NO_SYSTEM))
    rsd(*command, role, refusing).refused(3, "no system role", "--system ''")
    assert out.read_bytes() == b""
    assert rsd(*command, role, refusing, "--system", "").code == 0


def test_a_row_that_failed_says_what_to_try(rsd, ask, out):
    assert rsd("batch", ask([{"question": "Hello World " * 9000}]), "-o", "answers.jsonl", *FEW).code == 1
    (record,) = written(out)
    assert "or raise --ctx" in record["error"]["message"]
    again = rsd("batch", "questions.jsonl", "-o", "answers.jsonl", *FEW)
    assert "too long for this run's context with a larger --ctx, in a file of their own." in again.err
    assert "--retry-errors" not in again.err


@pytest.mark.parametrize("option", ["--id-field", "--input-field"])
def test_a_field_that_no_row_has_is_refused_before_models_are_looked_for(option, rsd, ask, out):
    (rsd.home / "models.yaml").unlink()
    command = ("batch", ask([b"", b"{", *rows(2)]), "-o", "answers.jsonl", *FEW, option, "uid")
    rsd(*command).refused(2, f"{option} 'uid' is a field of no row", "The first row has id, question.")
    assert not out.exists()


def test_a_field_that_one_row_has_is_the_files(rsd, ask, out):
    these = [b"5", *rows(2), {"uid": "mine", "asked": "What?"}]
    named = ("--id-field", "uid", "--input-field", "asked")
    assert rsd("batch", ask(these), "-o", "answers.jsonl", *FEW, *named).code == 1
    assert {record["custom_id"] for record in written(out) if not record["error"]} == {"mine"}
    assert rsd("batch", ask([], "none.jsonl"), "-o", "none", *FEW, *named).code == 0


BAD = {
    b"5": "invalid_json",
    b"[]": "invalid_json",
    b"null": "invalid_json",
    b'{"id": "torn", "question": "wh': "invalid_json",
    b"[" * 100_000: "invalid_json",
    b'{"id": 1' + b"0" * 5000 + b"}": "invalid_json",
    b'{"question": "?", "threshold": NaN}': "invalid_json",
    b'{"question": "?", "temperature": 1e999}': "invalid_json",
    b'{"question": "?", "question": "!"}': "invalid_json",
    b'{"question": "\xff"}': "invalid_utf8",
    b'{"question": "\\ud800"}': "invalid_text",
    b'{"id": 1.5, "question": "?"}': "bad_id",
    b'{"id": true, "question": "?"}': "bad_id",
    b'{"id": "", "question": "?"}': "bad_id",
    b'{"id": "empty", "question": " "}': "no_question",
    b'{"id": "none"}': "no_question",
    b'{"id": "list", "prompt": [1, 2]}': "bad_messages",
    b'{"id": "hot", "question": "?", "temperature": "hot"}': "bad_value",
    b'{"id": "odd", "question": "?", "strategy": "magic"}': "bad_value",
    b'{"id": "long", "question": "' + b"Hello World " * 9000 + b'"}': "context_overflow",
    b'{"id": "huge", "question": "' + b"x" * 4_000_001 + b'"}': "too_long",
}


def test_bad_rows_are_told_with_their_lines_and_good_ones_answered(rsd, ask, out):
    good, lines = rows(30), []
    for i, bad in enumerate(BAD):
        lines += [good[i], bad]
    done = rsd("batch", ask([*lines, *good[len(BAD) :]]), "-o", "answers.jsonl", *FEW)
    assert done.code == 1, done.err
    by_line = {record["rsd"]["line"]: record for record in written(out)}
    assert len(by_line) == len(written(out)) == len(good) + len(BAD)
    for i, code in enumerate(BAD.values()):
        record = by_line[2 * i + 2]
        assert record["error"]["code"] == code, record
        assert record["response"] is None
    answered = {record["custom_id"] for record in by_line.values() if record["error"] is None}
    assert answered == {row["id"] for row in good}
    assert "Traceback" not in done.err
    assert "line 2, " in done.err
    assert f"{len(BAD)} failed" in done.err
    again = rsd("batch", "questions.jsonl", "-o", "answers.jsonl", *FEW)
    assert again.code == 1
    assert len(written(out)) == len(by_line)


def test_rows_that_failed_are_tried_again_if_that_is_asked_for(rsd, ask, out):
    mixed = [*rows(2), {"id": "bad", "question": ""}]
    rsd("batch", ask(mixed), "-o", "answers.jsonl", *FEW)
    mended = [*rows(2), {"id": "bad", "question": "What is it?"}]
    done = rsd("batch", ask(mended), "-o", "answers.jsonl", *FEW, "--retry-errors")
    assert done.code == 0, done.err
    assert [r["error"] is None for r in written(out) if r["custom_id"] == "bad"] == [False, True]
    again = rsd("batch", "questions.jsonl", "-o", "answers.jsonl", *FEW)
    assert again.code == 0
    assert len(names(out)) == 4
    assert rsd("merge", "answers.jsonl", "-o", "clean.jsonl").code == 0
    assert [(r["custom_id"], r["error"]) for r in written(rsd.home / "clean.jsonl")] == [
        ("r0", None),
        ("r1", None),
        ("bad", None),
    ]


def test_a_failure_is_over_when_its_line_has_got_an_id(rsd, ask, out):
    command = ("batch", "questions.jsonl", "-o", "answers.jsonl", *FEW)
    ask([rows(1)[0], b'{"id": "b", "question": "wh'])
    assert rsd(*command).code == 1
    assert sorted(names(out)) == ["line-2", "r0"]
    failed_before = rsd(*command)
    assert failed_before.code == 1
    assert (
        "1 row failed, with an error in the output. Correct the lines that can't be asked, then add --retry-errors."
        in failed_before.err
    )
    ask([rows(1)[0], {"id": "b", "question": "What?"}])
    mended = rsd(*command)
    assert (mended.code, "--retry-errors" in mended.err) == (0, False), mended.err
    done = rsd("merge", "answers.jsonl", "-o", "clean.jsonl")
    assert (done.code, "no such rows: 'line-2'." in done.err) == (0, True), done.err
    assert names(rsd.home / "clean.jsonl") == ["r0", "b"]


def test_a_failed_row_that_was_changed_can_be_tried_again(rsd, ask, out):
    command = ("batch", "questions.jsonl", "-o", "answers.jsonl", *FEW)
    ask([b"{"])
    assert rsd(*command).code == 1
    ask([{"question": "What?"}])
    rsd(*command).refused(5, "'line-1' was changed since it failed", "--retry-errors")
    assert rsd(*command, "--retry-errors").code == 0
    assert [record["error"] is None for record in written(out)] == [False, True]


@pytest.mark.parametrize(("flags", "failures"), [(("--fail-fast",), 1), (("--max-errors", "2"), 2)])
def test_a_run_stops_at_as_many_errors_as_were_asked_for(flags, failures, rsd, ask, out):
    these = [{"id": f"bad{i}", "question": ""} for i in range(5)] + rows(200)
    assert rsd("batch", ask(these), "-o", "answers.jsonl", *FEW, *flags).code == 1
    assert sum(record["error"] is not None for record in written(out)) == failures
    assert len(names(out)) < 100


def test_rows_may_have_settings_of_their_own(rsd, ask, out):
    these = [
        {"id": "short", "question": "What?", "max_tokens": 3},
        {"id": "alone", "question": "What?", "strategy": "target"},
        {"id": "warm", "question": "What?", "temperature": 0.9, "seed": 7},
        {"id": "strict", "question": "What?", "threshold": 1.0, "system": "Be brief."},
        {"custom_id": "turns", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [
            {"role": "system", "content": "S"}, {"role": "user", "content": "A"},
            {"role": "assistant", "content": "B"}, {"role": "user", "content": "What?"}], "max_tokens": 4}},
    ]  # fmt: skip
    assert rsd("batch", ask(these), "-o", "answers.jsonl", *FEW).code == 0
    samples = {record["custom_id"]: record["rsd"]["samples"][0] for record in written(out)}
    assert sum(step["tokens"] for step in samples["short"]["steps"]) <= 3
    assert {step["author"] for step in samples["alone"]["steps"]} == {"target"}
    assert samples["warm"]["seed"] == 7
    assert samples["warm"]["settings"]["temperature"] == 0.9
    assert samples["strict"]["settings"]["system"] == "Be brief."
    assert {step["author"] for step in samples["strict"]["steps"]} == {"target"}
    assert samples["turns"]["usage"]["draft"]["prompt"] > samples["short"]["usage"]["draft"]["prompt"] - 60
    assert samples["turns"]["settings"]["max_tokens"] == 4


def test_a_row_with_a_threshold_has_no_part_in_the_budget(rsd, ask, out):
    these = [{"id": "own", "question": "What?", "threshold": 1.0}, {"id": "shared", "question": "What?"}]
    assert rsd("batch", ask(these), "-o", "answers.jsonl", *FEW, "--target-share", "0").code == 0
    samples = {record["custom_id"]: record["rsd"]["samples"][0] for record in written(out)}
    assert {step["author"] for step in samples["own"]["steps"]} == {"target"}
    assert {step["author"] for step in samples["shared"]["steps"]} == {"draft"}
    assert samples["own"]["settings"]["target_share"] is None
    assert samples["shared"]["settings"]["target_share"] == 0.0


def test_samples_of_a_row_are_kept_apart_with_a_majority(rsd, ask, out):
    done = rsd("batch", ask(rows(3)), "-o", "answers.jsonl", *FEW, "--samples", "4", "--temperature", "0.9")
    assert done.code == 0, done.err
    for record in written(out):
        choices = record["response"]["body"]["choices"]
        assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
        assert len({choice["message"]["content"] for choice in choices}) > 1
        assert "majority" in record["rsd"]
    rsd("batch", "questions.jsonl", "-o", "x.jsonl", *FEW, "--n", "4").refused(2, "--temperature")


def test_plain_lines_are_flat(rsd, ask, out):
    assert rsd("batch", ask(rows(2)), "-o", "answers.jsonl", *FEW, "--format", "plain").code == 0
    for record in written(out):
        assert record["input"].startswith("What is")
        assert isinstance(record["output"], str)
        assert record["finish_reason"] in ("stop", "length")
        assert record["error"] is None


def test_answers_in_order_come_in_the_order_of_the_input(rsd, ask, out):
    these = [{**row, "max_tokens": 3 + 40 * (i % 3 == 0)} for i, row in enumerate(rows(60))]
    these.insert(7, {"id": "bad", "question": ""})
    done = rsd("batch", ask(these), "-o", "answers.jsonl", *FEW, "--ordered", "--parallel", "2")
    assert done.code == 1
    assert names(out) == [row["id"] for row in these]


def test_standard_output_gets_the_lines_and_nothing_else(rsd, ask):
    done = rsd("batch", ask(rows(3)), "-o", "-", *FEW)
    assert done.code == 0
    assert sorted(json.loads(line)["custom_id"] for line in done.stdout.splitlines()) == ["r0", "r1", "r2"]


def test_a_reader_that_has_enough_is_no_error(rsd, ask):
    command = " ".join([*ENTRY, "batch", ask(rows(60)), "-o", "-", *FEW, "--quiet", "| head -1"])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True, env=rsd.env(), cwd=rsd.home, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert json.loads(done.stdout)["error"] is None


def test_a_slow_pipe_gets_its_first_answer_before_it_ends(rsd):
    process = subprocess.Popen(
        [*ENTRY, "batch", "-", "-o", "-", *FEW, "--quiet"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=rsd.env(), cwd=rsd.home,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    process.stdin.write(b'{"id": "first", "question": "What?"}\n')
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["custom_id"] == "first"
    process.stdin.write(b'{"id": "second", "question": "What?"}\n{"id": "first", "question": "Again?"}\n')
    out, err = process.communicate(timeout=30)
    last = {record["custom_id"]: record for record in map(json.loads, out.splitlines())}
    assert last["second"]["error"] is None
    assert last["line-3"]["error"]["code"] == "duplicate_id"
    assert (process.returncode, err) == (1, b"")


def test_shards_together_are_the_whole(rsd, ask, out):
    ask(rows(25))
    parts = []
    for i in (1, 2, 3):
        parts.append(f"part{i}.jsonl")
        assert rsd("batch", "questions.jsonl", "-o", parts[-1], *FEW, "--shard", f"{i}/3").code == 0
    assert rsd("merge", *parts[:2], "-o", "answers.jsonl").code == 5
    assert not out.exists()
    done = rsd("merge", *parts, "-o", "answers.jsonl")
    assert done.code == 0, done.err
    assert names(out) == [row["id"] for row in rows(25)]
    assert rsd("batch", "questions.jsonl", "-o", "answers.jsonl", *FEW).code == 0  # which has nothing to do
    assert len(names(out)) == 25


def test_a_merge_that_misses_a_row_says_which(rsd, ask):
    ask(rows(6))
    for i in (1, 2):
        rsd("batch", "questions.jsonl", "-o", f"part{i}.jsonl", *FEW, "--shard", f"{i}/2")
    lines = (rsd.home / "part2.jsonl").read_bytes().splitlines(keepends=True)
    gone = json.loads(lines[0])["custom_id"]
    (rsd.home / "part2.jsonl").write_bytes(b"".join(lines[1:]))
    rsd("merge", "part1.jsonl", "part2.jsonl", "-o", "all.jsonl").refused(5, "1 of 6 rows", f"'{gone}'")


def test_a_merge_writes_over_nothing_that_was_not_given_up(rsd, ask, out):
    rsd("batch", ask(rows(2)), "-o", "answers.jsonl", *FEW)
    kept = rsd.home / "kept.jsonl"
    kept.write_text("mine\n")
    rsd("merge", "answers.jsonl", "-o", "kept.jsonl").refused(2, "kept.jsonl is there already", "--overwrite")
    assert kept.read_text() == "mine\n"
    rsd("merge", "answers.jsonl", "-o", ".").refused(2, "no regular file")
    rsd("merge", "answers.jsonl", "-o", "no/such/x").refused(2, "no/such is no folder")
    rsd("merge", ".", "-o", "x").refused(2, ". is no file")
    rsd("merge", "absent", "-o", "x").refused(2, "absent is not there")
    before = out.read_bytes()
    for read in ("questions.jsonl", "answers.jsonl"):
        rsd("merge", "answers.jsonl", "-o", read, "--overwrite").refused(2, f"{read} is read as well")
    assert out.read_bytes() == before
    assert rsd("merge", "answers.jsonl", "-o", "kept.jsonl", "--overwrite").code == 0
    assert names(kept) == ["r0", "r1"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_batch_cleanly_and_the_same_command_goes_on(number, code, rsd, ask, out):
    command = ("batch", ask(rows(40)), "-o", "answers.jsonl", *SLOW, "--parallel", "3")
    process = rsd.start(*command)
    wait_for_lines(out, 2)
    os.kill(process.pid, number)
    returned, _, err = ended(process, 20)
    assert returned == code
    assert "the same command goes on" in err
    assert "Traceback" not in err
    n = len(written(out))
    assert n < 40
    assert rsd(*command, "--max-tokens", "60").code == 0
    assert sorted(names(out)) == sorted(row["id"] for row in rows(40))


def test_what_goes_on_is_the_command_without_overwrite(rsd, ask, out):
    command = ("batch", ask(rows(12)), "-o", "answers.jsonl", *SLOW, "--parallel", "3")
    process = rsd.start(*command, "--overwrite")
    wait_for_lines(out, 2)
    os.kill(process.pid, signal.SIGINT)
    returned, _, err = ended(process, 20)
    assert returned == 130
    assert "the same command without --overwrite goes on" in err
    before = out.read_bytes()
    assert rsd(*command).code == 0
    assert out.read_bytes().startswith(before)


def test_a_batch_killed_at_any_moment_ends_as_if_it_had_not_been(rsd, ask, out):
    """20 times kill -9 to the whole group, then the same command to its end.

    Every second one comes while lines are written, however long a start takes; the others at any time.
    """
    command = ("batch", ask(rows(300)), "-o", "answers.jsonl", *FEW, "--reproducible", "--ordered")
    assert rsd(*command[:3], "whole.jsonl", *command[4:]).code == 0
    moments = random.Random(0)
    lengths = [0]
    for kill in range(20):
        process = rsd.start(*command)
        if kill % 2 == 0 and lengths[-1] < 300:
            wait_for_lines(out, lengths[-1] + 1)
            time.sleep(moments.uniform(0, 0.02))
        else:
            time.sleep(moments.uniform(0.2, 0.9))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        lengths.append(out.read_bytes().count(b"\n"))
    assert any(0 < n < 300 for n in lengths), lengths
    done = rsd(*command)
    assert done.code == 0, done.err
    assert set(out.read_bytes().splitlines()) == set((rsd.home / "whole.jsonl").read_bytes().splitlines())
    assert len(names(out)) == len(set(names(out))) == 300


def test_two_runs_do_not_write_to_one_file(rsd, ask, out):
    command = ("batch", ask(rows(40)), "-o", "answers.jsonl", *SLOW, "--parallel", "2")
    process = rsd.start(*command)
    wait_for_lines(out, 1)
    second = rsd(*command)
    second.refused(5, "is being written by another rsd batch")
    process.kill()
    process.communicate()


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_reproducible_runs_have_no_quantized_memory(kind, rsd, ask):
    """llama.cpp has that with flash attention only."""
    rsd("batch", ask(rows(1)), "-o", "a.jsonl", "--reproducible", "--kv-type", kind).refused(
        2, f"--kv-type {kind} needs flash attention", "Leave out --kv-type"
    )
    assert not (rsd.home / "a.jsonl").exists()


def test_reproducible_runs_give_the_same_bytes(rsd, ask):
    """With any number of rows in flight from two on, and in the order of the input."""
    ask(rows(12))
    for parallel in ("2", "5", "0"):
        options = ("-o", f"{parallel}.jsonl", *FEW, "--reproducible", "--parallel", parallel)
        assert rsd("batch", "questions.jsonl", *options).code == 0
    two, five, any_number = ((rsd.home / f"{parallel}.jsonl").read_bytes() for parallel in ("2", "5", "0"))
    assert two == five == any_number
    assert names(rsd.home / "2.jsonl") == [f"r{i}" for i in range(12)]


def test_a_reproducible_run_alone_goes_on_alone(rsd, ask, out):
    """One row at a time has sums of its own; both kinds of answers do not belong into one file."""
    command = ("batch", ask(rows(3)), "-o", "answers.jsonl", *FEW, "--reproducible")
    assert rsd(*command, "--parallel", "1").code == 0
    rsd(*command).refused(5, "exact")
    assert rsd(*command, "--parallel", "1").code == 0
    assert len(names(out)) == 3


def test_where_time_ends_an_answer_nothing_is_reproducible(rsd, ask):
    rsd("batch", ask(rows(1)), "-o", "a.jsonl", "--reproducible", "--max-seconds", "9").refused(
        2, "--max-seconds 9", "hint: Limit --max-tokens"
    )


def test_what_is_written_side_by_side_is_reproducible_one_row_at_a_time(rsd, ask):
    command = ("batch", ask(rows(2)), "-o", "a.jsonl", *FEW, "--reproducible", "--temperature", "0.7")
    rsd(*command, "--strategy", "rsd-n@2", "--parallel", "4").refused(
        2, "With --strategy rsd-n@2", "asks for 4", "hint: Leave out --parallel"
    )
    assert rsd(*command, "--strategy", "rsd-n@2").code == 0


def test_a_reproducible_run_has_no_rows_that_write_side_by_side(rsd, ask, out):
    made = [*rows(1), {"id": "wide", "question": "What?", "strategy": "rsd-n@2", "temperature": 0.7}]
    assert rsd("batch", ask(made), "-o", "answers.jsonl", *FEW, "--reproducible").code == 1
    assert "a run for each number of them" in out.read_text()


CRASHES = """
import os, signal
from rsd_cli.decoding.requests import Requests
submit = Requests.submit
def crash(self, trajectory, request):
    if trajectory.problem.id in ("r7", "r30"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return submit(self, trajectory, request)
Requests.submit = crash
from rsd_cli.__main__ import main
main()
"""


def crashing(rsd, script, *arguments):
    (rsd.home / "crashes.py").write_text(script)
    return subprocess.run(
        [ENTRY[0], "crashes.py", "batch", "-o", "answers.jsonl", *FEW, *arguments],
        capture_output=True, env=rsd.env(), cwd=rsd.home, timeout=120, check=False,
    )  # fmt: skip


def test_rows_that_crash_the_engine_are_found_and_the_others_answered(rsd, ask, out):
    done = crashing(rsd, CRASHES, ask(rows(40)), "--overwrite")
    assert done.returncode == 1, done.stderr
    assert sorted(names(out)) == sorted(row["id"] for row in rows(40))
    failed = {r["custom_id"]: r["error"]["code"] for r in written(out) if r["error"]}
    assert failed == {"r7": "engine_crash", "r30": "engine_crash"}


def test_answers_in_order_stay_in_order_over_a_crash(rsd, ask, out):
    """Row 2 is still written when row 7 crashes; those between them were done, and not yet in the output."""
    these = [{**row, "max_tokens": 60 if row["id"] == "r2" else 2} for row in rows(12)]
    these.insert(4, {"id": "bad", "question": ""})
    script = CRASHES.replace('("r7", "r30")', '("r7",)')
    done = crashing(rsd, script, ask(these), "--ordered", "--parallel", "3", "--trio", "endless")
    assert done.returncode == 1, done.stderr
    assert names(out) == [row["id"] for row in these]
    failed = {r["custom_id"]: r["error"]["code"] for r in written(out) if r["error"]}
    assert failed == {"bad": "no_question", "r7": "engine_crash"}


def test_rows_that_crash_the_engine_are_not_tried_again_in_order_either(rsd, ask, out):
    done = crashing(rsd, CRASHES, ask(rows(40)), "--reproducible", "--retry-errors")
    assert done.returncode == 1, done.stderr
    assert names(out) == [row["id"] for row in rows(40)]
    failed = {r["custom_id"]: r["error"]["code"] for r in written(out) if r["error"]}
    assert failed == {"r7": "engine_crash", "r30": "engine_crash"}


@pytest.mark.parametrize("order", [(), ("--ordered",)])
def test_a_failure_is_tried_again_once_whatever_crashes_behind_it(order, rsd, ask, out):
    these = [{"id": "bad", "question": ""}, *rows(20)]
    for times in (1, 2):
        done = crashing(rsd, CRASHES, ask(these), "--retry-errors", *order)
        assert done.returncode == 1, done.stderr
        expected = {row["id"]: times if row["id"] in ("bad", "r7") else 1 for row in these}
        assert Counter(names(out)) == expected


def test_a_crash_right_behind_a_failures_line_does_not_write_it_again(rsd, ask, out):
    """A signal from outside, when the row that crashed the engine alone has just been written."""
    again = """
from rsd_cli.cli.batch_run import BatchRun
write = BatchRun._write
def written(self, outcome, place):
    write(self, outcome, place)
    if outcome.row.id == "r7" and not os.path.exists("once"):
        open("once", "w").close()
        os.kill(os.getpid(), signal.SIGSEGV)
BatchRun._write = written
from rsd_cli.__main__ import main
"""
    done = crashing(rsd, CRASHES.replace("\nfrom rsd_cli.__main__ import main\n", again), ask(rows(20)))
    assert done.returncode == 1, done.stderr
    assert (rsd.home / "once").exists()
    assert Counter(names(out)) == dict.fromkeys((row["id"] for row in rows(20)), 1)


def test_an_engine_that_always_crashes_is_given_up(rsd, ask):
    done = crashing(rsd, CRASHES.replace('in ("r7", "r30")', "!= ''"), ask(rows(40)))
    assert done.returncode == 6
    assert b"times in a row" in done.stderr


def test_a_row_that_takes_too_long_is_cut_short_and_says_so(rsd, ask, out):
    these = [{**rows(1)[0], "max_tokens": 15000}]
    command = (
        "--trio",
        "endless",
        "--ctx",
        "16000",
        "--max-steps",
        "15000",
        "--threads",
        "1",
        "--system",
        "",
    )
    done = rsd("batch", ask(these), "-o", "answers.jsonl", *command, "--max-seconds", "6")
    assert done.code == 0, done.err
    (record,) = written(out)
    assert record["response"]["body"]["choices"][0]["finish_reason"] == "length"
    assert record["rsd"]["samples"][0]["ended_by"] == "timeout"
    assert record["rsd"]["samples"][0]["answer"]


def test_a_full_disk_keeps_whole_lines_and_the_run_goes_on_later(rsd, ask, out):
    command = ["batch", ask(rows(60)), "-o", "answers.jsonl", *FEW, "--format", "plain"]
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))"
    script = f"{limit}; import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    (rsd.home / "full.py").write_text(script + "from rsd_cli.__main__ import main; main()")
    done = subprocess.run(
        [ENTRY[0], str(rsd.home / "full.py"), *command],
        capture_output=True, env=rsd.env(), cwd=rsd.home, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert out.read_bytes().endswith(b"\n")
    assert 0 < len(written(out)) < 60
    assert rsd(*command).code == 0
    assert len({record["id"] for record in written(out)}) == len(written(out)) == 60


def test_an_output_that_is_deleted_meanwhile_stops_the_run(rsd, ask, out):
    process = rsd.start("batch", ask(rows(40)), "-o", "answers.jsonl", *SLOW, "--parallel", "2")
    wait_for_lines(out, 1)
    out.unlink()
    code, _, err = ended(process, 20)
    assert code == 5
    assert "moved or deleted" in err


def test_a_summary_is_written_as_json(rsd, ask):
    these = [{**row, "answer": "#### 7"} for row in rows(4)]
    done = rsd("batch", ask(these), "-o", "answers.jsonl", *FEW, "--summary", "summary.json", "--quiet")
    assert (done.code, done.err) == (0, "")
    summary = json.loads((rsd.home / "summary.json").read_text())
    assert summary["rows"] == {"answered": 4, "failed": 0, "skipped": 0, "left": 0}
    assert summary["graded"] == 4
    assert summary["tokens"]["draft"]["generated"] > 0
    assert sum(decodes for _, decodes, _ in summary["decodes"]["draft"]) > 0


def test_a_summary_is_of_the_whole_file_however_often_the_run_began(rsd, ask):
    these = [{**row, "answer": "#### 7"} for row in rows(5)]
    command = ("-o", "answers.jsonl", *FEW, "--summary", "summary.json")
    rsd("batch", ask(these[:3]), *command)
    assert "5 with a known answer" in rsd("batch", ask(these), *command).err
    grown = json.loads((rsd.home / "summary.json").read_text())
    assert grown["rows"] == {"answered": 2, "failed": 0, "skipped": 3, "left": 0}
    assert rsd("batch", ask(these), *command).code == 0
    again = json.loads((rsd.home / "summary.json").read_text())
    assert again["counted"] == grown["counted"] == again["graded"] == 5
    assert again["tokens"] == grown["tokens"]


def test_a_summary_of_no_answers_leaves_an_older_one(rsd, ask):
    command = ("batch", ask(rows(2)), "-o", "a.jsonl", *FEW, "--format", "plain", "--summary", "summary.json")
    rsd(*command)
    before = (rsd.home / "summary.json").read_bytes()
    assert json.loads(before)["counted"] == 2
    again = rsd(*command)
    assert (again.code, (rsd.home / "summary.json").read_bytes()) == (0, before)
    assert "summary.json is left as it was" in again.err


def test_rows_answered_before_a_crash_are_in_the_summary(rsd, ask):
    these = [{**row, "answer": "#### 7"} for row in rows(40)]
    crashing(rsd, CRASHES, ask(these), "--summary", "summary.json")
    summary = json.loads((rsd.home / "summary.json").read_text())
    assert (summary["counted"], summary["graded"]) == (38, 38)
    assert summary["errors"] == {"engine_crash": 2}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("absent.jsonl", "-o", "a.jsonl"), ("absent.jsonl",)),
        (("questions.jsonl", "-o", "questions.jsonl"), ("input as well",)),
        (("questions.jsonl", "-o", "no/such/a.jsonl"), ("no/such/a.jsonl",)),
        (("questions.jsonl", "-o", "."), ("no regular file",)),
        (("questions.jsonl", "-o", "a.jsonl", "--shard", "3/2"), ("3/2",)),
        (("questions.jsonl", "-o", "a.jsonl", "--summary", "no/such/s.json"), ("no/such/s.json",)),
        (("questions.jsonl", "-o", "a.jsonl", "--summary", "."), ("Is a directory",)),
        (("questions.jsonl", "-o", "a.jsonl", "--summary", "questions.jsonl"), ("is the input as well",)),
        (("questions.jsonl", "-o", "a.jsonl", "--summary", "./a.jsonl"), ("is the output as well",)),
        (("questions.jsonl", "-o", "a.jsonl", "--summary", "a.jsonl.run.json"), ("manifest as well",)),
        (("questions.jsonl", "-o", "a.jsonl", "--format", "xml"), ("xml",)),
        (("questions.jsonl", "-o", "a.jsonl", "--strategy", "magic"), ("magic",)),
    ],
)
def test_what_can_not_be_done_is_refused_before_models_load(arguments, words, rsd, ask):
    ask(rows(2))
    questions = (rsd.home / "questions.jsonl").read_bytes()
    rsd("batch", *arguments, *FEW[:2]).refused(2, *words)
    assert (rsd.home / "questions.jsonl").read_bytes() == questions


def test_a_summary_over_the_answers_is_refused_however_they_are_named(rsd, ask, out):
    command = ("batch", ask(rows(2)), "-o", "answers.jsonl", *FEW)
    rsd(*command)
    before = out.read_bytes()
    (rsd.home / "link").symlink_to(out)
    rsd(*command, "--summary", "link").refused(2, "link is the output as well", "another file")
    assert out.read_bytes() == before


def test_an_empty_file_is_no_rows(rsd, ask, out):
    done = rsd("batch", ask([]), "-o", "answers.jsonl", *FEW)
    assert done.code == 0
    assert "0 answered" in done.err
    assert out.read_bytes() == b""
