"""The user's commands on the real small models, which are fetched once and kept in the user's cache."""

import json
import os
import subprocess
import sys

import pytest

from tests.e2e.tokens import tokens_of_text

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
KEYS = [
    *("schema", "id", "question", "answer", "final_answer", "steps", "usage", "flops", "timings"),
    *("ended_by", "strategy", "settings", "models", "versions", "seed"),
]

pytestmark = pytest.mark.model


@pytest.fixture(scope="module", autouse=True)
def own_conversations(tmp_path_factory):
    """Models are the user's; what is asked here does not become his last conversation."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


def rsd(*args, said="", **more):
    return subprocess.run(
        [sys.executable, "-m", "rsd_cli", *args],
        check=False,
        input=said,
        capture_output=True,
        text=True,
        timeout=1200,
        env=os.environ | {"COLUMNS": "80"},
        **more,
    )


@pytest.fixture(scope="module")
def starter(tmp_path_factory):
    """The default command's record, and what it printed."""
    trace = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    done = rsd("ask", QUESTION, "--trace", str(trace))
    assert done.returncode == 0, done.stderr
    return done, json.loads(trace.read_text())


def test_the_default_command_answers_72(starter):
    done, record = starter
    assert record["final_answer"] == "72"
    assert done.stdout.strip() == record["answer"].strip()
    assert "\x1b" not in done.stdout


def test_the_record_has_the_documented_keys(starter):
    _, record = starter
    assert list(record) == KEYS
    assert record["ended_by"] == "eog"
    assert {step["author"] for step in record["steps"]} <= {"draft", "target"}
    assert set(record["usage"]["draft"]) == {"prompt", "generated", "discarded", "fed", "reused"}


def test_a_reproducible_batch_gives_the_same_bytes_with_any_number_of_rows_in_flight(tmp_path):
    """Also where quantized weights are summed in other ways for other numbers of rows."""
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": f"{i}. {QUESTION}"}) + "\n" for i in range(5)))
    options = ("batch", str(questions), "--reproducible", "-n", "40")
    files = [tmp_path / "two.jsonl", tmp_path / "five.jsonl"]
    for file, parallel in zip(files, ("2", "5"), strict=True):
        done = rsd(*options, "-o", str(file), "--parallel", parallel)
        assert done.returncode == 0, done.stderr
    assert files[0].read_bytes() == files[1].read_bytes()


def test_nothing_is_fed_again(starter):
    _, record = starter
    assert_fed_once(record)


def test_compute_is_counted_from_decoded_tokens(starter):
    _, record = starter
    for role, usage in record["usage"].items():
        if role in record["models"]:
            parameters = record["models"][role]["parameters"]
            assert record["flops"][role] == 2 * parameters * (usage["fed"] + usage["generated"])
    assert record["flops"]["total"] == sum(record["flops"][role] for role in record["usage"])


def test_what_the_authors_sampled_adds_up(starter):
    _, record = starter
    for author in ("draft", "target"):
        usage = record["usage"][author]
        kept = sum(step["tokens"] for step in record["steps"] if step["author"] == author)
        assert usage["generated"] == kept + usage["discarded"]
    rejected = sum(step["rejected"]["tokens"] for step in record["steps"] if "rejected" in step)
    assert record["usage"]["draft"]["discarded"] == rejected


def test_models_with_other_vocabularies_work_together():
    done = rsd("ask", "What is 3 + 4?", "--trio", "tiny", "--max-tokens", "120", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["answer"].strip()
    assert_fed_once(record)


def test_the_target_alone_and_the_draft_alone():
    for strategy in ("target", "draft"):
        done = rsd(
            "ask", "What is 3 + 4?", "--strategy", strategy, "--max-tokens", "40", "--json", "--offline"
        )
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        assert {step["author"] for step in record["steps"]} == {strategy}
        assert list(record["models"]) == [strategy]


def assert_fed_once(record):
    for role, usage in record["usage"].items():
        text = tokens_of_text(record, role)
        bound = usage["prompt"] + text + usage["discarded"] + 2 * len(record["steps"])
        assert usage["fed"] + usage["generated"] <= bound, role


def test_a_batch_answers_every_row_and_then_does_nothing(tmp_path):
    sums = {f"sum-{i}": f"What is {i} plus {2 * i}? Answer with the number." for i in range(3, 9)}
    rows = [{"id": name, "question": question} for name, question in sums.items()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("batch", "rows.jsonl", "-o", "answers.jsonl", "--max-tokens", "80", "--parallel", "20")
    done = rsd(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert sorted(line["custom_id"] for line in lines) == sorted(sums)
    samples = [line["rsd"]["samples"][0] for line in lines]
    shared = [sample["usage"]["draft"]["reused"] for sample in samples]
    assert sum(reused >= 16 for reused in shared) >= 5  # the prompt that all begin with was read once
    assert any(
        str(3 * int(line["custom_id"][4:])) in sample["answer"]
        for line, sample in zip(lines, samples, strict=True)
    )
    again = rsd(*command, cwd=tmp_path)
    assert again.returncode == 0
    assert "6 done before" in again.stderr


def test_a_follow_up_builds_on_the_answer_and_reads_little():
    said = "What is 12 * 3?\nAnd now add 5 to that. What do you get?\n"
    done = rsd("chat", "--json", "--no-log", "-n", "200", said=said)
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["final_answer"], second["final_answer"]) == ("36", "41")
    for role in ("draft", "target"):
        used = second["usage"][role]
        assert used["fed"] == 0 or used["fed"] < used["prompt"], role
