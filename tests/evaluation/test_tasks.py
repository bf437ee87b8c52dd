"""Tasks: every format becomes items, a user's YAML file is a task, and what is wrong with a file is said."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rsd_cli.errors import ModelError, RSDError, UsageError
from rsd_cli.evaluation.items import Item
from rsd_cli.evaluation.taskdata import Origin, load
from rsd_cli.evaluation.tasks import TASKS, HubData, Task, find_task

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "task" / "warm-up.yaml"
OPTIONS = ["gas", "ice", "fog", "dew"]
LISTED = "Answer Choices: (A) gas (B) ice (C) fog (D) dew"


@pytest.fixture
def file_of(tmp_path):
    def write(*rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text(
            "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8"
        )
        return path

    return write


@pytest.mark.parametrize(
    ("name", "row", "question", "gold"),
    [
        ("gsm8k", {"question": "How many?", "answer": "2+2=<<2+2=4>>4\n#### 1,004"}, "How many?", "1,004"),
        ("math500", {"problem": "Add.", "solution": "…", "answer": r"\frac{1}{2}"}, "Add.", r"\frac{1}{2}"),
        ("math500", {"problem": "Cost?", "answer": r"\$32,\!348"}, "Cost?", r"\$32,\!348"),
        ("minerva", {"problem": "Cost?", "solution": r"It is $\boxed{\$7}$."}, "Cost?", r"\$7"),
        ("olympiadbench", {"question": "Cost?", "final_answer": [r"$\$5$"]}, "Cost?", r"\$5"),
        ("gaokao2023en", {"question": "Both?", "answer": "$48$, $384$"}, "Both?", "48, 384"),
        ("olympiadbench", {"question": "All?", "final_answer": ["$1,3$", "$5$"]}, "All?", "1,3, 5"),
        ("minerva", {"problem": "Far?", "solution": r"It is \boxed{1} or \boxed{4.5e33}."}, "Far?", "4.5e33"),
        ("minerva", {"question": "Far?", "answer": "3"}, "Far?", "3"),
        ("svamp", {"Body": "Ann has 3", "Question": "Left?", "Answer": 2.0}, "Ann has 3. Left?", "2.0"),
        ("asdiv", {"body": "Ann has 9.", "question": "All?", "answer": "9 (apples)"}, "Ann has 9. All?", "9"),
        ("aime24", {"problem": "Find m+n.", "answer": 204}, "Find m+n.", "204"),
        ("aime24", {"problem": "Find m+n.", "solution": r"\boxed{025}"}, "Find m+n.", "025"),
        ("amc23", {"question": "Speed?", "answer": 27.0}, "Speed?", "27.0"),
        ("math500", {"problem": "Is it?", "answer": "Yes"}, "Is it? (Yes or No)", "Yes"),
        ("math500", {"problem": "Is it?", "answer": "false"}, "Is it? (True or False)", "false"),
        ("mmlu-stem", {"question": "Cold?", "choices": OPTIONS, "answer": 1}, f"Cold?\n{LISTED}", "B"),
        ("mmlu-stem", {"question": "Cold?", "choices": OPTIONS, "answer": "D"}, f"Cold?\n{LISTED}", "D"),
        ("gpqa", {"question": "Cold?", "choices": OPTIONS, "answer": "ice"}, f"Cold?\n{LISTED}", "B"),
    ],
)
def test_every_format_becomes_an_item(file_of, name, row, question, gold):
    (item,) = load(TASKS[name], file_of(row)).items
    assert (item.id, item.question, item.gold) == ("0", question, gold)


def test_every_task_has_a_reader_a_source_and_the_papers_prompt():
    assert list(TASKS) == [
        "gsm8k", "math500", "gaokao2023en", "olympiadbench", "gpqa", "mmlu-stem", "minerva", "svamp", "asdiv",
        "aime24", "amc23",
    ]  # fmt: skip
    for task in TASKS.values():
        assert task.system == "Please reason step by step, and put your final answer within \\boxed{}."
        assert task.source
        assert task.source.revision is None or re.fullmatch("[0-9a-f]{40}", task.source.revision)


def test_rows_that_are_no_part_of_a_task_are_left_out_and_numbers_stay(file_of):
    law = {"question": "Law?", "subject": "international_law", "choices": OPTIONS, "answer": 0}
    star = {"question": "Star?", "subject": "astronomy", "choices": OPTIONS, "answer": 0}
    assert [item.id for item in load(TASKS["mmlu-stem"], file_of(law, star, star)).items] == ["1", "2"]
    assert len(load(TASKS["mmlu-stem"], file_of(law, star, star), limit=1).items) == 1
    many = {"body": "Ann.", "question": "All?", "answer": "9 (apples); 3 (pears)"}
    with pytest.raises(UsageError, match="no rows of asdiv"):
        load(TASKS["asdiv"], file_of(many))


def test_the_options_of_gpqa_are_in_an_order_of_their_own_that_stays(file_of):
    rows = [
        {
            "Question": f"Q{i}?",
            "Correct Answer": "yes",
            **{f"Incorrect Answer {k}": f"no {k}" for k in (1, 2, 3)},
        }
        for i in range(40)
    ]
    items = load(TASKS["gpqa"], file_of(*rows)).items
    assert items == load(TASKS["gpqa"], file_of(*rows)).items
    assert {item.gold for item in items} == set("ABCD")
    assert all(item.choices["ABCD".index(item.gold)] == "yes" for item in items)


def test_where_rows_are_from_is_recorded(file_of):
    path = file_of({"question": "Q?", "answer": "#### 1"})
    origin = load(TASKS["gsm8k"], path).origin
    assert origin.place == str(path)
    assert re.fullmatch("[0-9a-f]{64}", origin.sha256 or "")


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        (
            "gsm8k",
            {"prompt": "Q?", "answer": "1"},
            "Row 1 of .* has no field 'question'; it has answer, prompt",
        ),
        ("gsm8k", {"question": "Q?", "answer": None}, "Row 1 .* 'answer' is 'None'"),
        ("gsm8k", {"question": "Q?", "answer": "####"}, "the gold answer is empty"),
        ("minerva", {"problem": "Q?", "solution": "unclear"}, r"no \\boxed"),
        (
            "mmlu-stem",
            {"question": "Q?", "choices": OPTIONS, "answer": 4},
            "'4' is none of the choices A, B, C, D",
        ),
        ("mmlu-stem", {"question": "Q?", "choices": "gas", "answer": 0}, "choices are needed"),
        ("olympiadbench", {"question": "Prove it.", "final_answer": None}, "the gold answer is empty"),
        ("gsm8k", "[1]", "Line 1 of .* no JSON object"),
        ("gsm8k", "{", "Line 1 of .* no JSON object"),
        ("gsm8k", "[" * 100_000, "Line 1 of .* no JSON object"),
        ("gsm8k", '{"question": "Q?", "answer": "1", "x": NaN}', "no JSON object: NaN is not a JSON number"),
        ("gsm8k", '{"question": "Q?", "answer": "1", "x": [-1e999]}', "no JSON object: -1e999 is not a"),
        ("gsm8k", "", "no rows of gsm8k"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(file_of, name, row, said):
    with pytest.raises(UsageError, match=said):
        load(TASKS[name], file_of(row))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="can't be read"):
        load(TASKS["gsm8k"], tmp_path / "nothing.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9")
    with pytest.raises(UsageError, match="not UTF-8"):
        load(TASKS["gsm8k"], tmp_path / "latin.jsonl")


def test_the_example_of_a_users_own_task():
    data = load(find_task(str(EXAMPLE)))
    assert data.task.answer_type == "numeric"
    assert data.items[0].id == "shelf"
    assert (
        data.items[0].question == "A shelf has 4 boards with 9 books each. How many books are on the shelf?"
    )
    assert [item.gold for item in data.items] == ["36", "85", "2.5", "12", "290"]


def test_a_users_multiple_choice_task_with_its_own_prompt(file_of, tmp_path):
    file_of({"Frage": "Kalt?", "Wahl": OPTIONS, "richtig": "B", "extra": r"\boxed{}"}, name="q.jsonl")
    (tmp_path / "task.yaml").write_text(
        "name: kalt\nfile: q.jsonl\nanswer_type: choice\nsystem: Kurz.\n"
        'prompt: "{extra} {Frage} {}"\nfields: {question: Frage, answer: richtig, choices: Wahl}\n'
    )
    data = load(find_task(str(tmp_path / "task.yaml")))
    assert data.task.system == "Kurz."
    assert data.items == (
        Item(
            "0", f"\\boxed{{}} Kalt? {{}}\n{LISTED}", "B",
            {"Frage": "Kalt?", "Wahl": OPTIONS, "richtig": "B", "extra": r"\boxed{}"}, tuple(OPTIONS),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        (
            "name: a\nfile: q.jsonl\nanswer_typ: maths\n",
            r"task.yaml:3:\d+: unknown key 'answer_typ'",
            "answer_type",
        ),
        ("name: a\nfile: q.jsonl\n", "answer_type is missing", "name, file and answer_type"),
        ("name: a\nfile: q.jsonl\nanswer_type: poem\n", "task.yaml:3:.*'numeric', 'maths' or 'choice'", ""),
        ("name: a b\nfile: q.jsonl\nanswer_type: maths\n", "task.yaml:1:.*'a b'.*a name has letters", ""),
        ("name: gsm8k\nfile: q.jsonl\nanswer_type: maths\n", "gsm8k is the name of a built-in task", ""),
        (
            "name: a\nfile: q.jsonl\nanswer_type: choice\n",
            "fields.choices and answer_type choice go together",
            "",
        ),
        (
            "name: a\nfile: ~nobody-here/q.jsonl\nanswer_type: maths\n",
            "task.yaml:2:.*file is '~nobody-here/q.jsonl'",
            "whole path",
        ),
        ("name: a\nfile: 7\nanswer_type: maths\n", "task.yaml:2:.*file is '7'.*string", ""),
        ("name: a\nfile: q\nanswer_type: maths\nfields: {frage: x}\n", "task.yaml:4:.*'frage'", "question"),
        ("- a\n", "not a mapping", "name, file"),
        ("name: &x a\nfile: *x\n", "anchors and aliases are not allowed", ""),
    ],
)
def test_what_is_wrong_with_a_task_file_is_said_with_its_place(tmp_path, text, said, hint):
    (tmp_path / "task.yaml").write_text(text)
    with pytest.raises(UsageError, match=said) as refusal:
        find_task(str(tmp_path / "task.yaml"))
    assert hint in refusal.value.hint


def test_rows_that_do_not_fit_a_users_task(file_of, tmp_path):
    (tmp_path / "task.yaml").write_text("name: a\nfile: q.jsonl\nanswer_type: maths\nfields: {id: key}\n")
    file_of(
        {"question": "Q?", "answer": 1, "key": 1}, {"question": "R?", "answer": 1, "key": "1"}, name="q.jsonl"
    )
    with pytest.raises(UsageError, match="'1' stands twice"):
        load(find_task(str(tmp_path / "task.yaml")))
    file_of({"question": "Q?", "answer": 1}, name="q.jsonl")
    with pytest.raises(UsageError, match="no field 'key'; it has answer, question"):
        load(find_task(str(tmp_path / "task.yaml")))


FIELDS = "fields: {question: q, answer: a, id: key}\n"
PROMPT = 'prompt: "{context}|{q}"\n'


@pytest.mark.parametrize("value", [None, ["x"], {"x": 1}])
@pytest.mark.parametrize(
    ("more", "field"), [("", "q"), (PROMPT, "context"), (PROMPT, "q"), ("", "key"), ("", "a")]
)
def test_what_is_no_text_is_no_field_of_a_users_task(more, field, value, file_of, tmp_path):
    (tmp_path / "task.yaml").write_text(f"name: t\nfile: q.jsonl\nanswer_type: numeric\n{FIELDS}{more}")
    row = {"q": "Q?", "a": 1, "key": 1, "context": "C."}
    file_of(row | {field: value}, name="q.jsonl")
    with pytest.raises(UsageError, match=rf"Row 1 of .*q.jsonl can't be used: '{field}' is "):
        load(find_task(str(tmp_path / "task.yaml")))


def test_numbers_are_text_and_a_field_of_a_prompt_may_be_empty(file_of, tmp_path):
    (tmp_path / "task.yaml").write_text(f"name: t\nfile: q.jsonl\nanswer_type: numeric\n{FIELDS}{PROMPT}")
    row = {"q": 7, "a": 1.5, "key": 3, "context": ""}
    file_of(row, row | {"a": True, "key": "four"}, name="q.jsonl")
    first, second = load(find_task(str(tmp_path / "task.yaml"))).items
    assert (first.id, first.question, first.gold) == ("3", "|7", "1.5")
    assert (second.id, second.gold) == ("four", "True")
    file_of(row | {"context": False}, name="q.jsonl")
    with pytest.raises(UsageError, match="'context' is 'False'"):
        load(find_task(str(tmp_path / "task.yaml")))


def test_an_unknown_task_is_refused_with_the_nearest_one():
    with pytest.raises(UsageError, match="'gsm9k'") as refusal:
        find_task("gsm9k")
    assert refusal.value.hint == "Did you mean 'gsm8k'? A YAML file is a task too."
    with pytest.raises(UsageError) as refusal:
        find_task("poems")
    assert refusal.value.hint.endswith("amc23. A YAML file is a task too.")


def test_without_the_loader_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(RSDError, match="package datasets") as refusal:
        load(TASKS["gsm8k"])
    assert "rsd-cli[eval]" in refusal.value.hint


def test_the_loader_reads_splits_in_order_and_says_what_is_wrong(file_of, tmp_path, monkeypatch):
    """The real package over a folder, which it takes for a repository."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    repo = tmp_path / "repo"
    repo.mkdir()
    file_of({"question": "Q?", "answer": "#### 1"}, name="repo/train.jsonl")
    file_of({"question": "R?", "answer": "#### 2"}, name="repo/test.jsonl")
    source = HubData(str(repo), ("train", "test"), revision="0" * 40)
    data = load(Task("own", "numeric", TASKS["gsm8k"].read, source))
    assert [item.gold for item in data.items] == ["1", "2"]
    assert data.origin == Origin(str(repo), revision="0" * 40, pinned=True)
    newest = Task("own", "numeric", TASKS["gsm8k"].read, replace(source, revision=None))
    monkeypatch.setattr("rsd_cli.evaluation.taskdata.dataset_commit", lambda _repo: "2" * 40)
    for known, used in ((None, "2" * 40), ("1" * 40, "1" * 40)):
        assert load(newest, revision=known).origin == Origin(str(repo), revision=used)
    assert load(Task("own", "numeric", TASKS["gsm8k"].read, source), revision="1" * 40).origin == data.origin
    missing = HubData(str(repo), ("validation",), revision="0" * 40)
    with pytest.raises(ModelError, match="can't be loaded"):
        load(Task("own", "numeric", TASKS["gsm8k"].read, missing))


@pytest.mark.hub
@pytest.mark.skipif(
    not os.environ.get("RSD_TEST_HUB"), reason="needs the Hugging Face hub: set RSD_TEST_HUB=1"
)
@pytest.mark.parametrize(
    "name", [name for name, task in TASKS.items() if task.source and not task.source.gated]
)
def test_a_task_loads_from_the_hub(name):
    data = load(TASKS[name])
    assert re.fullmatch("[0-9a-f]{40}", data.origin.revision or "")
    assert TASKS[name].rows in (None, len(data.items)) or not data.origin.pinned
