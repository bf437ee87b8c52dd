"""Samples survive their file, in the harness's field names; nothing else passes for one."""

import hashlib
import json

import pytest

from rsd_cli.errors import OutputError
from rsd_cli.evaluation.samples import Sample, read_samples, set_hash
from tests.evaluation.made import runs_of, sample_of

HARNESS = {
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
    *("doc_hash", "prompt_hash", "target_hash", "exact_match"),
}


def written(path, samples):
    path.write_text("".join(sample.to_json() + "\n" for sample in samples), "utf-8")
    return path


def test_a_line_has_the_harness_names_and_one_key_of_ours():
    sample = sample_of("rsd", "rsd", 3)
    data = json.loads(sample.to_json())
    assert set(data) == HARNESS | {"rsd"}
    assert data["resps"] == [[sample.records[0].answer]]
    assert data["filtered_resps"] == [sample.extracted]
    assert data["exact_match"] == float(sample.right)
    assert data["target_hash"] == hashlib.sha256(b"13").hexdigest()
    doc = json.dumps(sample.doc, indent=2, ensure_ascii=False)
    assert data["doc_hash"] == hashlib.sha256(doc.encode()).hexdigest()


def test_all_samples_survive_a_file(tmp_path):
    for run in runs_of(6):
        back = read_samples(written(tmp_path / "samples.jsonl", run.samples))
        assert back == run.samples


def test_a_question_without_an_answer_is_a_sample(tmp_path):
    lost = Sample("rsd", 1, {"question": "?"}, "4", (), False, None, "timeout")
    assert read_samples(written(tmp_path / "samples.jsonl", [lost])) == (lost,)


@pytest.mark.parametrize("cut", [1, 2, 50, 1000])
def test_a_torn_last_line_is_left_out(cut, tmp_path):
    samples = runs_of(3, ("rsd",))[0].samples
    path = written(tmp_path / "samples.jsonl", samples)
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_samples(path) == samples[:2]


def edited(line, change):
    data = json.loads(line)
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("rsd"),
        lambda data: data.update(colour="red"),
        lambda data: data.update(doc_id="1"),
        lambda data: data.update(exact_match=0.5),
        lambda data: data.update(filtered_resps=[]),
        lambda data: data["doc"].update(question="Another?"),
        lambda data: data["rsd"].update(outcome="lost"),
        lambda data: data["rsd"]["branches"][0].update(score="high"),
        lambda data: data["rsd"]["branches"][0]["record"].update(seed="x"),
    ],
)
def test_a_whole_line_that_is_no_sample_is_refused_with_its_place(change, tmp_path):
    samples = runs_of(3, ("rsd",))[0].samples
    lines = [sample.to_json() for sample in samples]
    lines[1] = edited(lines[1], change)
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(OutputError, match="line 2"):
        read_samples(path)


@pytest.mark.parametrize("line", ["", "nonsense", "[" * 100_000, "null"])
def test_other_lines_are_refused(line, tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(OutputError, match="line 1") as refusal:
        read_samples(path)
    assert "remove the line" in refusal.value.hint


def test_a_question_that_is_answered_twice_is_refused(tmp_path):
    sample = sample_of("rsd", "rsd", 3)
    with pytest.raises(OutputError, match="a second time"):
        read_samples(written(tmp_path / "samples.jsonl", [sample, sample]))


def test_a_missing_file_is_an_error_for_a_user(tmp_path):
    with pytest.raises(OutputError, match="can't be read"):
        read_samples(tmp_path / "none.jsonl")


def test_the_hash_of_a_set_is_that_of_its_questions_in_any_order():
    first, second = runs_of(5, ("rsd", "target"))
    assert set_hash(first.samples) == set_hash(reversed(second.samples))
    assert set_hash(first.samples) != set_hash(first.samples[1:])
