"""The answers that a calibration keeps: whose they are, and that a killed run goes on."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from rsd_cli.cli.calibration_record import Answered, Answers, described, digest
from rsd_cli.cli.questions import GoldQuestion
from rsd_cli.cli.warm import FoundModel, FoundTrio
from rsd_cli.decoding.trajectory import Settings
from rsd_cli.engine.sampling import Sampling
from rsd_cli.errors import OutputError, UsageError
from rsd_cli.records import Rejected, Step
from rsd_cli.rewards.spec import PrmSpec

TASKS = [GoldQuestion(str(i), f"What is {i} + 2?", None) for i in range(3)]
SETTINGS = {"seed": 0}
STEP = Step("One\u2028two\u0085three\n\n", "draft", None, 5, 1.5, Rejected("no", 0.1, 2))


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def answered(task, run="audit 0"):
    return Answered(run, task.id, digest(task.question), (STEP,))


@pytest.fixture
def record(tmp_path):
    """A file with answers to the first two tasks."""
    path = tmp_path / "answers.jsonl"
    answers = Answers(path, SETTINGS, TASKS)
    for task in TASKS[:2]:
        answers.add(answered(task))
    answers.close()
    return path


def opened(path, settings=SETTINGS, tasks=TASKS):
    answers = Answers(path, settings, tasks)
    answers.close()
    return answers


def test_what_was_kept_is_there_again_whatever_its_text(record):
    known = opened(record)
    assert [known.get("audit 0", task.id) for task in TASKS] == [*map(answered, TASKS[:2]), None]


def test_a_torn_line_is_cut_off_and_answered_again(record):
    whole = record.read_bytes()
    record.write_bytes(whole[:-7])
    again = Answers(record, SETTINGS, TASKS)
    assert again.get("audit 0", "1") is None
    again.add(answered(TASKS[1]))
    again.close()
    assert record.read_bytes() == whole


@pytest.mark.parametrize("left", [0, 1, 20])
def test_a_torn_header_is_written_again(left, record):
    header = record.read_bytes().splitlines(keepends=True)[0]
    record.write_bytes(header[:left])
    opened(record)
    assert record.read_bytes() == header


@pytest.mark.parametrize(
    "content",
    [
        b"notes without a line end",
        b"notes\nand more",
        b"\n",
        b"[" * 10_000 + b"\n",
        b"GGUF\x00\xff" * 50_000,
        b'{"question": "What?"}\n{"question',
        b'{"schema": 1, "kind": "calibration"}\n',
        b'{"schema": 2, "kind": "calibration", "settings": {"seed": 0}}\n',
    ],
)
def test_a_file_of_something_else_is_refused_and_stays_as_it_is(content, tmp_path):
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="no record of rsd prm calibrate"):
        opened(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [b"{}", b"1", b"\xff", b"", b'{"run": "audit 0", "id": 1}'])
def test_a_line_of_something_else_is_named(line, record):
    record.write_bytes(record.read_bytes() + line + b"\n")
    with pytest.raises(OutputError, match="Line 4"):
        opened(record)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UsageError, match="no regular file"):
        opened(tmp_path)
    with pytest.raises(UsageError, match="can't be written"):
        opened(tmp_path / "gone" / "answers.jsonl")


def test_two_runs_do_not_write_to_one_file(record):
    first = Answers(record, SETTINGS, TASKS)
    with pytest.raises(OutputError, match="another rsd"):
        opened(record)
    first.close()
    opened(record)


def test_changed_questions_are_refused_and_more_of_them_are_welcome(record):
    opened(record, tasks=[*TASKS, GoldQuestion("3", "And 5?", None)])
    opened(record, tasks=TASKS[:1])
    opened(record, tasks=[*TASKS[:2], GoldQuestion("2", "Another that has no answer yet?", None)])
    with pytest.raises(OutputError, match="Line 3"):
        opened(record, tasks=[TASKS[0], GoldQuestion("1", "Another?", None)])


FOUND = FoundTrio(
    {
        "draft": FoundModel("d", Path("d.gguf"), "a" * 64, 1),
        "target": FoundModel("t", Path("t.gguf"), None, 1),
    },
    PrmSpec("p", "judge"),
    0.5,
    {},
)
ASKED = Settings("audit", sampling=Sampling())


@pytest.mark.parametrize(
    ("found", "asked", "says"),
    [
        (
            {"models": FOUND.models | {"draft": FoundModel("d", Path("d.gguf"), "b" * 64, 1)}},
            {},
            "models.draft",
        ),
        (
            {"models": FOUND.models | {"target": FoundModel("t", Path("u.gguf"), None, 1)}},
            {},
            f"models.target was .{digest('t')}.*, now .{digest('u')}",
        ),
        ({"prm": PrmSpec("p", "confidence")}, {}, "prm"),
        ({}, {"sampling": Sampling(temperature=0.7)}, "sampling.temperature was 0.0, now 0.7"),
        ({}, {"max_tokens": 7}, "max_tokens"),
        ({}, {"seed": 3}, "seed was 0, now 3"),
    ],
)
def test_what_answers_depend_on_must_be_the_same(found, asked, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RSD_HOME", str(tmp_path))
    for name in ("t", "u"):
        Path(f"{name}.gguf").write_text(name)
    path = tmp_path / "answers.jsonl"
    opened(path, described("tiny", FOUND, ASKED))
    opened(path, described("tiny", FOUND, ASKED))
    before = path.read_bytes()
    with pytest.raises(OutputError, match=says):
        opened(path, described("tiny", replace(FOUND, **found), replace(ASKED, **asked)))
    assert path.read_bytes() == before
    assert json.loads(before)["kind"] == "calibration"


def test_a_file_that_took_the_place_of_another_is_another(tmp_path, monkeypatch):
    monkeypatch.setenv("RSD_HOME", str(tmp_path))
    mine, path = tmp_path / "mine.gguf", tmp_path / "answers.jsonl"
    found = replace(FOUND, models={"target": FoundModel("t", mine, None, 1)})
    mine.write_text("one")
    before = described("tiny", found, ASKED)
    opened(path, before)
    mine.write_text("another")
    after = described("tiny", found, ASKED)
    assert (before["models"], after["models"]) == ({"target": sha256("one")}, {"target": sha256("another")})
    with pytest.raises(OutputError, match=r"models\.target"):
        opened(path, after)
