"""rsd prm: score, train, calibrate and import, as a user runs them."""

import copy
import json
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from rsd_cli.cli import prm
from rsd_cli.cli.interrupt import Interrupt
from rsd_cli.cli.prm_score import read_solutions
from rsd_cli.cli.questions import read_questions
from rsd_cli.cli.train_folder import card_of, check_output, title, write_card
from rsd_cli.cli.trio import LoadedTrio
from rsd_cli.errors import UsageError
from rsd_cli.evaluation.grading import last_number
from rsd_cli.registry.names import number_text
from rsd_cli.rewards.heads import Head, load_head
from rsd_cli.rewards.rollouts import Rollout, SeenStep
from tests.cli.command import declared, trio
from tests.rewards.checkpoint_files import COMMIT, pytorch_bin, safetensors, serving, write
from tests.rewards.test_checkpoints import LAYOUTS, H
from tests.rewards.test_heads import a_head

PROBLEM = {"problem": "What is 1 + 2?", "steps": ["We add 1 and 2.", "1 + 2 = 3"]}
TEXT = "What is 1 + 2?\n\nWe add 1 and 2.\n\n1 + 2 = 3\n"
SHORT = ("--threads", "1")


def questions(home, n=30, long=None):
    """Sums, some of them behind so many words."""
    path = home / "questions.jsonl"
    said = {i: " the" * words for i, words in (long or {}).items()}
    rows = [
        {"question": f"What{said.get(i, '')} is {i} + 2?", "answer": f"We add.\n#### {i + 2}"}
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ENDS = "a\u2028b\u2029c\x85d"  # what ends a line elsewhere, and nothing in JSON
DEEP = "[" * 100_000


def test_only_a_newline_ends_a_line_of_json(tmp_path):
    path = tmp_path / "q.jsonl"
    rows = [{"question": ENDS, "answer": "3"}, {"question": "And?", "answer": "4"}]
    path.write_bytes("\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    asked = read_questions(path, 10, need_gold=True)
    assert [(task.id, task.question) for task in asked] == [("0", ENDS), ("1", "And?")]
    text = json.dumps({"problem": ENDS, "steps": [ENDS, "So."]}, ensure_ascii=False) + "\n"
    ((name, solution),) = read_solutions(text, "q")
    assert (name, solution.question, solution.steps) == ("1", ENDS, (ENDS + "\n\n", "So."))


def test_a_line_that_is_too_deep_is_a_bad_one(tmp_path):
    (tmp_path / "q.jsonl").write_text(DEEP)
    with pytest.raises(UsageError, match="Line 1"):
        read_questions(tmp_path / "q.jsonl", 10, need_gold=False)
    with pytest.raises(UsageError, match="Line 1"):
        list(read_solutions('{"problem": ' + DEEP, "q"))


def test_a_bad_line_is_named_by_its_number_behind_blank_ones_too(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('\n{"question": "What?", "answer": "3"}\n \n\n{"question": "And?"}\n\n{broken')
    asked = read_questions(path, 2, need_gold=False)
    assert [(task.id, task.question) for task in asked] == [("0", "What?"), ("1", "And?")]
    with pytest.raises(UsageError, match=r"Line 5 of .* has no answer"):
        read_questions(path, 2, need_gold=True)
    with pytest.raises(UsageError, match=r"Line 7 of .* has no question"):
        read_questions(path, 3, need_gold=False)


@pytest.mark.parametrize(
    "text",
    [
        "{1, 2} is a set. What is its sum?\n\nIt is 3.\n\nSo 3.",
        "{1, 2} is a set. What is its sum?\n \nIt is 3.\r\n\t\r\n\r\nSo 3.\n",
    ],
)
def test_blank_lines_stand_between_steps_and_a_brace_begins_no_json(text):
    ((_, solution),) = read_solutions(text, "q")
    assert solution.question == "{1, 2} is a set. What is its sum?"
    assert solution.steps == ("It is 3.\n\n", "So 3.")


def test_a_line_whose_id_is_null_goes_by_its_number():
    lines = [json.dumps(PROBLEM | more) for more in ({"id": None}, {"id": 0}, {})]
    assert [name for name, _ in read_solutions("\n".join(lines), "q")] == ["1", "0", "3"]


def test_text_is_scored_as_a_table_with_bars(rsd):
    done = rsd("prm", "score", "-", "--prm", "opinion", *SHORT, stdin=TEXT.encode())
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "min"]
    assert "We add 1 and 2." in lines[2]
    assert "█" in done.out
    rewards = [float(line.split()[1]) for line in lines[2:]]
    assert rewards[-1] == min(rewards[:-1])
    last = rsd("prm", "score", "-", "--prm", "opinion", "--aggregate", "last", *SHORT, stdin=TEXT.encode())
    assert last.out.splitlines()[-1].split()[:2] == ["last", lines[3].split()[1]]


def test_json_lines_are_scored_alike_in_any_number_of_seats(rsd):
    lines = "".join(json.dumps(PROBLEM | {"id": name}) + "\n" for name in "abc")
    by_seats = []
    for seats in ("1", "3"):
        done = rsd(
            "prm", "score", "-", "--prm", "opinion", "--json", "--seats", seats, *SHORT, stdin=lines.encode()
        )
        assert done.code == 0, done.err
        rows = {row["id"]: row for row in map(json.loads, done.out.splitlines())}
        assert set(rows) == set("abc")
        assert all(len(row["rewards"]) == 2 and row["score"] == min(row["rewards"]) for row in rows.values())
        by_seats.append([reward for name in "abc" for reward in rows[name]["rewards"]])
    assert by_seats[0] == pytest.approx(by_seats[1], abs=0.02)


@pytest.mark.parametrize(
    ("text", "options", "word"),
    [
        ("only a question", (), "no question with steps"),
        ('{"problem": "x"}', (), "Line 1"),
        ('{"problem": "x", "steps": []}', (), "Line 1"),
        ('{"problem": "x", "steps": [1]}', (), "Line 1"),
        ("{broken", (), "Line 1"),
        (TEXT, ("--aggregate", "median"), "median"),
        (TEXT, ("--prm", "confidence"), "confidence"),
    ],
)
def test_what_can_not_be_scored_is_refused(text, options, word, rsd):
    named = options if "--prm" in options else ("--prm", "opinion", *options)
    rsd("prm", "score", "-", *named, *SHORT, stdin=text.encode()).refused(2, word)


class Pressed(Interrupt):
    """Ctrl-C just before a model loads."""

    def __enter__(self):
        super().__enter__()
        signal.raise_signal(signal.SIGINT)
        return self


@pytest.mark.parametrize("command", ["score", "train"])
def test_ctrl_c_while_a_model_loads_is_no_error(command, rsd, monkeypatch):
    for name, value in rsd.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(rsd.home)
    monkeypatch.setattr("rsd_cli.cli.interrupt.Interrupt", Pressed)
    (rsd.home / "solution.txt").write_text(TEXT)
    arguments = {
        "score": ["score", "solution.txt", "--prm", "opinion"],
        "train": ["train", questions(rsd.home), "--work", "work", "--model", "draft", "-o", "h.safetensors"],
    }
    done = CliRunner().invoke(prm.app, arguments[command])
    assert done.exit_code == 130, done.exception


def test_ctrl_c_while_models_load_for_the_report_of_a_calibration_is_no_error(rsd, monkeypatch):
    args = [
        "calibrate",
        questions(rsd.home),
        "--trio",
        "tiny",
        "--rows",
        "2",
        "-n",
        "9",
        "--record",
        "a.jsonl",
    ]
    assert rsd("prm", *args, *SHORT).code == 0
    for name, value in rsd.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(rsd.home)
    load = LoadedTrio.load

    def load_and_press(trio, role):
        signal.raise_signal(signal.SIGINT)
        return load(trio, role)

    monkeypatch.setattr(LoadedTrio, "load", load_and_press)
    done = CliRunner().invoke(prm.app, [*args, *SHORT])
    assert (done.exit_code, done.stdout) == (130, ""), done.exception
    assert len((rsd.home / "a.jsonl").read_text().splitlines()) == 1 + 2


def train(rsd, *more, file="questions.jsonl", model="draft", output="h.safetensors"):
    return rsd("prm", "train", file, "--work", "work", "--model", model, "-o", output, *SHORT, *more)


FEW = ("--rows", "30", "--samples", "1", "-n", "24", "--completions", "2")


def solved(rsd, gold="{}", **how):
    """Sums as `questions` has them, but their golds are the numbers that the generator says, where it says one."""
    path = Path(questions(rsd.home, **how))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    train(rsd, *FEW, "--label", "0", "--work", "first")
    for line in (rsd.home / "first" / "rollouts.jsonl").read_text().splitlines():
        rollout = Rollout.from_json(line)
        if said := last_number("".join(step.text for step in rollout.steps)):
            rows[int(rollout.id)]["answer"] = gold.format(said)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def trained(rsd):
    """A head that the command made on a tiny model, and how the command ended."""
    (rsd.home / "head.md").write_text("# head\n\nof an earlier run\n")
    solved(rsd, long={3: 1300, 4: 3000})
    done = train(rsd, *FEW, "--label", "4", output="head.safetensors")
    assert done.code == 0, done.err
    return done


def test_formulas_are_compared_as_such_and_other_labels_not_mixed_in(rsd):
    solved(rsd, r"\sqrt{{{0}^2}}")
    done = train(rsd, *FEW, "--label", "0")
    assert done.code == 0, done.err
    kept = (rsd.home / "work" / "rollouts.jsonl").read_text().splitlines()
    rights = [Rollout.from_json(line) for line in kept]
    assert any(rollout.right and "sqrt" in (rollout.gold or "") for rollout in rights)
    manifest = rsd.home / "work" / "run.json"
    for key, words in (("formulas", "'math-verify'"), ("cut_short", "'right by a box alone'")):
        whole = manifest.read_text()
        manifest.write_text(whole.replace(f'"{key}"', '"left"'))  # as of an earlier version
        train(rsd, *FEW, "--label", "0").refused(5, key, words, "--work")
        manifest.write_text(whole)


def test_more_rows_may_bring_the_first_formulas(rsd):
    path = Path(solved(rsd))
    numbers = path.read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in numbers]
    formulas = [json.dumps(row | {"answer": rf"\sqrt{{{row['answer']}}}"}) + "\n" for row in rows]
    path.write_text("".join(numbers[:20] + formulas[20:]))
    train(rsd, *FEW, "--rows", "20", "--label", "0")
    manifest, kept = (rsd.home / "work" / name for name in ("run.json", "rollouts.jsonl"))
    known = json.loads(manifest.read_text())
    before = kept.read_text()
    assert "formulas" not in known
    silent = [json.loads(line) | {"gold": None} for line in before.splitlines()]  # as of an earlier version
    kept.write_text("".join(json.dumps(row) + "\n" for row in silent))
    train(rsd, *FEW, "--label", "0").refused(5, "formulas", "'math-verify'")
    kept.write_text(before)
    done = train(rsd, *FEW, "--label", "0")
    assert done.code == 0, done.err
    assert kept.read_text().startswith(before)
    assert json.loads(manifest.read_text()) == known | {"formulas": "math-verify"}


def test_too_few_problems_are_refused_before_the_work(rsd):
    questions(rsd.home, n=9)
    train(rsd).refused(2, "Too few problems: 9", "at least 10")
    questions(rsd.home, n=12, long={i: 3000 for i in range(12) if i not in {1, 8}})  # both held out
    done = train(rsd, "-n", "24")
    assert (done.code, done.out) == (2, "")
    assert "10 of 12 problems are left out" in done.err
    assert "2, of which 0 are to train on" in done.err
    assert not (rsd.home / "work" / "rollouts.jsonl").exists()


def test_solutions_that_are_all_wrong_are_refused(rsd):
    path = rsd.home / questions(rsd.home)
    rows = [json.loads(line) | {"answer": "no solution"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = train(rsd, *FEW, "--label", "0")
    assert (done.code, done.out) == (2, "")
    assert "0 of 2" in done.err
    assert "to train on are right" in done.err
    assert not (rsd.home / "h.safetensors").exists()


def test_a_head_is_trained_with_a_card_and_used_by_its_draft(rsd, trained):
    head = load_head(rsd.home / "head.safetensors")
    assert (head.family, head.base) == ("draft-head", "draft")
    assert head.inputs[0] == "hidden"
    assert head.n_vocab == 448
    card = (rsd.home / "head.md").read_text()
    for words in ("AUC", "calibration error", "Reliability by outcome", "the state alone", "seed 0"):
        assert words in card
    command = (
        "rsd prm train questions.jsonl --work work -o head.safetensors --model draft --rows 30 --samples 1 "
        "--label 4 --completions 2 --temperature 0.7 --max-tokens 24 --seed 0"
    )
    assert head.facts["command"] == f"`{command}`"
    assert command in card
    assert "1 of 30 problems are left out" in trained.err
    assert "29 of 29 problems" in card
    assert trained.out.strip() == "head.safetensors"
    declared = yaml.safe_load((rsd.home / "models.yaml").read_text())
    prm = {"family": "draft-head", "model": "draft", "head": "head.safetensors", "threshold": 0.5}
    declared["prms"]["own"] = prm | {"calibrated_on": "nothing"}
    declared["trios"]["own"] = trio("draft", "target", "own", 0.0)
    rsd.write_models(yaml.safe_dump(declared))
    record = json.loads(rsd("ask", "What is 1 + 2?", "--trio", "own", "-n", "40", "--json").out)
    plain = json.loads(rsd("ask", "What is 1 + 2?", "--strategy", "draft", "-n", "40", "--json").out)
    assert record["answer"] == plain["answer"]
    assert all(0 <= step["reward"] <= 1 for step in record["steps"])
    assert "prm" not in record["models"]
    assert record["usage"]["draft"]["generated"] == plain["usage"]["draft"]["generated"]
    assert record["usage"]["draft"]["fed"] == plain["usage"]["draft"]["fed"]
    assert record["flops"]["prm"] == 0
    other = rsd("ask", "What is 1 + 2?", "--trio", "own", "--draft", "judge", "-n", "10", "--json")
    assert "prm" in json.loads(other.out)["models"]
    by_name = ("prm", "score", "-", "--prm", "own", "--json", *SHORT)
    scored = rsd(*by_name, stdin=TEXT.encode())
    assert len(json.loads(scored.out)["rewards"]) == 2


def test_a_trained_head_is_used_by_its_file_alone(rsd, trained):
    assert "Use it with --prm head.safetensors" in trained.err
    ask = ("ask", "What is 1 + 2?", "-n", "40", "--json")
    record = json.loads(rsd(*ask, "--prm", "head.safetensors", "--threshold", "0").out)
    plain = json.loads(rsd(*ask, "--strategy", "draft").out)
    assert record["answer"] == plain["answer"]
    assert all(0 <= step["reward"] <= 1 for step in record["steps"])
    assert record["usage"]["draft"]["fed"] == plain["usage"]["draft"]["fed"]
    scored = rsd("prm", "score", "-", "--prm", "head.safetensors", "--json", *SHORT, stdin=TEXT.encode())
    assert len(json.loads(scored.out)["rewards"]) == 2
    rsd(*ask, "--prm", "head.safetensors", "--draft", "judge").refused(
        3, "made for draft with the hash", "judge has"
    )


def test_a_head_on_a_model_that_nobody_declared_finds_it_from_every_directory(rsd):
    declared = yaml.safe_load((rsd.home / "models.yaml").read_text())
    solved(rsd)
    shutil.copy(declared["models"]["draft"]["sources"][0]["path"], rsd.home / "gen.gguf")
    done = train(rsd, *FEW, "--label", "0", model="gen.gguf")
    assert done.code == 0, done.err
    head = load_head(rsd.home / "h.safetensors")
    assert head.base == str(rsd.home / "gen.gguf")
    assert head.facts["base"] == f"gen, sha256 {head.base_sha256}"
    score = ("prm", "score", "-", "--prm", "h.safetensors", "--json", *SHORT)
    assert len(json.loads(rsd(*score, stdin=TEXT.encode()).out)["rewards"]) == 2
    shutil.copy(declared["models"]["judge"]["sources"][0]["path"], rsd.home / "gen.gguf")
    told = f"made for {head.base} with the hash {head.base_sha256[:12]}…, gen has"
    done = rsd(*score, stdin=TEXT.encode())
    assert (done.code, told in done.err) == (3, True), done.err


def test_a_card_is_written_whole_or_not_at_all_and_the_same_command_goes_on(rsd, trained, monkeypatch):
    card = rsd.home / "head.md"
    old = card.read_bytes() + b"and a note of mine\n"
    card.write_bytes(old)
    for name, value in rsd.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(rsd.home)
    save, limits = Head.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(head, path):
        save(head, path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    args = [
        "train",
        "questions.jsonl",
        "--work",
        "work",
        "--model",
        "draft",
        "-o",
        "head.safetensors",
        *SHORT,
    ]
    with monkeypatch.context() as patched:
        patched.setattr(Head, "save", fill_the_disk)
        try:
            done = CliRunner().invoke(prm.app, [*args, *FEW, "--label", "4"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "No room left to write head.md" in str(done.exception)
    assert card.read_bytes() == old
    assert not list(rsd.home.glob("head.md.*"))
    assert train(rsd, *FEW, "--label", "4", output="head.safetensors").code == 0
    assert b"note of mine" not in card.read_bytes()


def test_names_that_are_no_text_do_no_harm(rsd):
    Path(solved(rsd)).rename(rsd.home / os.fsdecode(b"q\xe9.jsonl"))
    args = (
        "prm",
        "train",
        b"q\xe9.jsonl",
        "--work",
        b"w\xff",
        "--model",
        "draft",
        "-o",
        b"h\xfe.safetensors",
    )
    for _ in range(2):
        done = rsd(*args, *FEW, "--label", "0", *SHORT)
        assert done.code == 0, done.err
    card = (rsd.home / os.fsdecode(b"h\xfe.md")).read_text()
    command = load_head(rsd.home / os.fsdecode(b"h\xfe.safetensors")).facts["command"]
    assert card.startswith("# h\\udcfe\n")
    assert command.startswith("`rsd prm train 'q\\udce9.jsonl' --work 'w\\udcff' -o 'h\\udcfe.safetensors'")
    assert command in card


def test_a_file_that_is_no_head_of_a_draft_is_no_prm(rsd):
    rsd("ask", "Hi", "--prm", "nowhere.safetensors").refused(3, "nowhere.safetensors can't be read", "path")
    (rsd.home / "bad.safetensors").write_bytes(b"GGUF")
    rsd("ask", "Hi", "--prm", "bad.safetensors").refused(3, "bad.safetensors")
    a_head().save(rsd.home / "value.safetensors")
    rsd("ask", "Hi", "--prm", "value.safetensors").refused(2, "of the family value-head", "models.yaml")


def test_training_goes_on_where_it_was_interrupted_and_refuses_another_run(rsd):
    args = ["prm", "train", solved(rsd), "--work", "work", "--model", "draft", "-o", "h.safetensors"]
    args += [*FEW, "--label", "2", *SHORT]
    running = rsd.start(*args)
    kept = rsd.home / "work" / "rollouts.jsonl"
    end = time.monotonic() + 60
    while not (kept.exists() and kept.stat().st_size) and time.monotonic() < end:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 130
    before = kept.read_bytes().splitlines()
    kept.write_bytes(b"\n".join(before) + b'\n{"id": "cut')
    assert rsd(*args).code == 0
    after = kept.read_bytes().splitlines()
    assert after[: len(before)] == before
    keys = [(row["id"], row["sample"]) for row in map(json.loads, after)]
    assert len(keys) == len(set(keys)) == 30
    rsd(*args, "--seed", "5").refused(5, "seed", "--work")


def test_more_rows_leave_the_labels_that_are_there(rsd):
    solved(rsd)
    labelled = rsd.home / "work" / "labelled.jsonl"
    for rows in ("20", "30"):
        train(rsd, *FEW, "--rows", rows, "--label", "3")
        kept = [json.loads(line)["id"] for line in labelled.read_text().splitlines()]
        assert sorted(kept, key=int) == ["1", "5", "8"]  # the first that are not to train on


@pytest.mark.parametrize(("file", "model", "code"), [("nope", "draft", 2), ("questions.jsonl", "nope", 2)])
def test_a_command_that_can_not_begin_claims_no_folder(file, model, code, rsd):
    questions(rsd.home)
    train(rsd, file=file, model=model).refused(code, "nope")
    assert not (rsd.home / "work").exists()


@pytest.mark.parametrize("manifest", ["{cut", "[]", "[" * 100_000, None])
def test_a_folder_that_does_not_say_whose_it_is_is_refused(manifest, rsd):
    questions(rsd.home)
    path = rsd.home / "work" / "run.json"
    path.parent.mkdir()
    path.mkdir() if manifest is None else path.write_text(manifest)
    train(rsd).refused(5, "run.json", "--work")


def test_a_line_that_is_no_rollout_is_refused(rsd):
    questions(rsd.home)
    (rsd.home / "work").mkdir()
    (rsd.home / "work" / "rollouts.jsonl").write_text('{"id": "0"}\n')
    train(rsd).refused(5, "Line 1", "rollouts.jsonl")


def a_rollout(question, gold="2"):
    state = np.zeros(4, np.float16)
    step = SeenStep("We add.", (1, 2), -0.5, -1.0, 0.5, state, state)
    return Rollout("0", 0, question, (step,), right=True, gold=gold)


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (
            a_rollout("How much is 0 + 2?"),
            ["problem 0", "question 'How much is 0 + 2?'", "'What is 0 + 2?' now"],
        ),
        (a_rollout("What is 0 + 2?", gold="7"), ["problem 0", "answer '7'", "'2' now"]),
    ],
)
def test_rollouts_of_another_question_are_not_mixed_in(kept, words, rsd):
    questions(rsd.home)
    (rsd.home / "work").mkdir()
    (rsd.home / "work" / "rollouts.jsonl").write_text(kept.to_json() + "\n")
    train(rsd).refused(5, *words, "--work")


def test_another_file_under_the_same_name_is_not_mixed_in(rsd, tiny):
    questions(rsd.home)
    (rsd.home / "work").mkdir()
    (rsd.home / "work" / "rollouts.jsonl").write_text("{}\n")
    train(rsd).refused(5, "Line 1")  # begun, and ended by that
    declared = yaml.safe_load((rsd.home / "models.yaml").read_text())
    before = declared["models"]["draft"]["sha256"]
    declared["models"]["draft"] = copy.deepcopy(declared["models"]["slow"])
    rsd.write_models(yaml.safe_dump(declared))
    train(rsd).refused(5, "model_sha256", before, declared["models"]["slow"]["sha256"])
    manifest = rsd.home / "work" / "run.json"
    known = json.loads(manifest.read_text())
    del known["model_sha256"]  # as an earlier version left it
    manifest.write_text(json.dumps(known))
    train(rsd).refused(5, "Line 1")
    assert json.loads(manifest.read_text())["model_sha256"] == declared["models"]["slow"]["sha256"]


def test_a_text_that_is_no_card_is_not_overwritten(rsd):
    questions(rsd.home)
    (rsd.home / "notes.md").write_text("# My notes\n")
    train(rsd, output="notes.safetensors").refused(2, "notes.md")
    train(rsd, output="other.md").refused(2, "other.md")
    train(rsd, output="gone/h.safetensors").refused(2, "gone")
    assert (rsd.home / "notes.md").read_text() == "# My notes\n"


@pytest.mark.parametrize(
    ("output", "card"),
    [
        ("m-0.5b", "m-0.5b"),
        ("m-0.6b.safetensors", "m-0.6b"),
        ("m", "m"),
        ("m.safetensors.bin", "m.safetensors.bin"),
    ],
)
def test_a_card_has_its_heads_name_with_all_its_dots(output, card, tmp_path):
    assert card_of(tmp_path / output) == tmp_path / f"{card}.md"
    assert title(tmp_path / output) == f"# {card}"
    write_card(tmp_path / output, f"# {card}\n")
    check_output(tmp_path / output)  # may be written again


def test_answers_that_no_context_holds_are_refused(rsd):
    questions(rsd.home)
    train(rsd, "-n", "5000").refused(2, "every problem", "2,048", "--max-tokens")


def test_a_threshold_is_found_and_written_to_the_file_that_declares_the_trio(rsd):
    declared = yaml.safe_load((rsd.home / "models.yaml").read_text())
    models = rsd.write_models("# mine\n" + yaml.safe_dump(declared))
    args = ("prm", "calibrate", questions(rsd.home), "--trio", "tiny", "--rows", "4", "-n", "30", *SHORT)
    done = rsd(*args, "--target-share", "0.5", "--save", "--plot", "report.svg", "--record", "answers.jsonl")
    assert done.code == 0, done.err
    for words in ("rewards of the draft's steps", "estimated at every threshold", "threshold 0."):
        assert words in done.out
    assert f"written to {models}" in done.err
    text = models.read_text()
    assert text.startswith("# mine")
    threshold = yaml.safe_load(text)["trios"]["tiny"]["threshold"]
    assert f"threshold {number_text(threshold)}: " in done.out
    told = yaml.safe_load(text)["trios"]["tiny"]["calibrated_on"]
    assert told == f"questions.jsonl, 4 questions, {time.strftime('%Y-%m-%d')}"
    assert told in rsd("models", "show", "tiny").out
    declared["trios"]["tiny"] |= {"threshold": threshold, "calibrated_on": told}
    assert yaml.safe_load(text) == declared
    assert not (rsd.home / "xdg_config_home" / "rsd").exists()
    assert "threshold" in (rsd.home / "report.svg").read_text()
    again = rsd(*args, "--target-share", "0.9", "--save", "--record", "answers.jsonl", "--json")
    report = json.loads(again.out)
    assert yaml.safe_load(models.read_text())["trios"]["tiny"]["threshold"] == report["threshold"]
    assert len((rsd.home / "answers.jsonl").read_text().splitlines()) == 1 + 4
    shares = [point["target_share"] for point in report["curve"]]
    assert shares == sorted(shares)
    assert shares[0] == 0


def test_the_drafts_answers_are_graded_where_gold_ones_are_known(rsd):
    path = Path(questions(rsd.home, n=4))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1] |= {"answer": "$1+x^2$"}
    del rows[3]["answer"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = ("prm", "calibrate", str(path), "--trio", "tiny", "-n", "20", "--record", "a.jsonl", *SHORT)
    assert "of 3 answers right" in rsd(*args).out
    header, *lines = (rsd.home / "a.jsonl").read_text().split("\n")[:-1]
    answers = [json.loads(line) for line in lines]
    for answer in answers:
        answer["steps"][-1]["text"] = r" \boxed{x^2+1}" if answer["id"] == "1" else r" \boxed{77}"
    (rsd.home / "a.jsonl").write_text("".join(f"{line}\n" for line in (header, *map(json.dumps, answers))))
    assert "1 of 3 answers right (33.3%)" in rsd(*args).out
    assert json.loads(rsd(*args, "--json").out)["draft"] == {"right": 1, "graded": 3, "accuracy": 1 / 3}
    for answer in answers:
        answer["steps"] = [{**answer["steps"][-1], "text": f"It is {int(answer['id']) + 2}"}]
        answer["ended_by"] = "max_tokens" if answer["id"] == "0" else "eog"
    (rsd.home / "a.jsonl").write_text("".join(f"{line}\n" for line in (header, *map(json.dumps, answers))))
    assert "1 of 3 answers right" in rsd(*args).out, "the first was cut short before it had a box"
    for answer in answers:
        del answer["ended_by"]  # as of an earlier version
    (rsd.home / "a.jsonl").write_text("".join(f"{line}\n" for line in (header, *map(json.dumps, answers))))
    assert "2 of 3 answers right" in rsd(*args).out
    path.write_text("".join(json.dumps({"question": row["question"]}) + "\n" for row in rows))
    assert json.loads(rsd(*args, "--json").out)["draft"] is None


@pytest.mark.parametrize(
    ("place", "found"),
    [("rsd_cli.evaluation.grader._has_maths", False), ("rsd_cli.evaluation.maths._start", None)],
)
def test_formulas_that_can_not_be_compared_are_not_graded_or_refused(place, found, rsd, monkeypatch):
    for name, value in rsd.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(rsd.home)
    monkeypatch.setattr(place, lambda: found)
    path = Path(questions(rsd.home, n=12))
    path.write_text(path.read_text().replace("#### 2", "#### 1+x^2"))
    args = ["calibrate", str(path), "--trio", "tiny", "--rows", "3", "-n", "9", *SHORT]
    done = CliRunner().invoke(prm.app, args)
    assert done.exit_code == 0, done.exception
    assert "math-verify" in done.stderr
    assert "of 2 answers right" in done.stdout
    for refused in ([*args, "--sweep", "1"], ["train", str(path), "--work", "w", "-o", "h.safetensors"]):
        assert "math-verify" in str(CliRunner().invoke(prm.app, refused).exception)


def test_a_threshold_that_can_not_be_saved_is_refused_before_the_work(rsd):
    users = rsd.home / "xdg_config_home" / "rsd" / "models.yaml"
    users.parent.mkdir(parents=True)
    users.write_text("trios: {}\n")
    args = ("prm", "calibrate", questions(rsd.home), "--trio", "math-7b", "--rows", "1", "-n", "9", *SHORT)
    rsd(*args, "--save", "--record", "answers.jsonl").refused(2, "in place", "Leave out --save")
    assert not (rsd.home / "answers.jsonl").exists()


def test_a_picture_of_the_report_touches_no_other_file(rsd):
    (rsd.home / "report.txt").write_text("mine")
    args = ("prm", "calibrate", questions(rsd.home), "--trio", "tiny", "--rows", "1", "-n", "9", *SHORT)
    for name, begin in (("report.svg", b"<?xml"), ("report.png", b"\x89PNG"), ("report.PNG", b"\x89PNG")):
        for _ in range(2):
            done = rsd(*args, "--plot", name)
            assert done.code == 0, done.err
            assert (rsd.home / name).read_bytes().startswith(begin)
    assert (rsd.home / "report.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("path", "says"), [("gone/report.svg", "gone"), ("d.svg", "folder"), ("r.txt", ".svg"), ("r", "r.png")]
)
def test_a_picture_that_can_not_be_written_is_refused_before_the_work(path, says, rsd):
    (rsd.home / "d.svg").mkdir()
    args = ("prm", "calibrate", questions(rsd.home), "--trio", "tiny", "--rows", "1", "-n", "9", *SHORT)
    rsd(*args, "--plot", path, "--record", "answers.jsonl").refused(2, says, path)
    assert not (rsd.home / "answers.jsonl").exists()


def test_a_sweep_measures_accuracy_between_draft_and_target(rsd):
    args = ("prm", "calibrate", questions(rsd.home), "--trio", "judged", "--rows", "3", "-n", "30", *SHORT)
    done = rsd(*args, "--sweep", "1", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    first, middle, last = report["runs"]
    assert (first["threshold"], first["target_share"]) == (0, 0)
    assert (last["threshold"], last["target_share"]) == (1, 1)
    assert middle["above_chord"]["low"] <= middle["above_chord"]["mean"] <= middle["above_chord"]["high"]
    rsd(*args, "--record", "a.jsonl")
    rsd(*args, "--record", "a.jsonl", "--seed", "3").refused(5, "--record")


def test_a_calibration_goes_on_after_a_kill_with_more_rows_of_the_same_questions(rsd):
    (rsd.home / "notes.txt").write_text("mine")
    args = ["prm", "calibrate", questions(rsd.home), "--trio", "tiny", "-n", "20", "--json", *SHORT]
    assert rsd(*args, "--rows", "2", "--record", "a.jsonl").code == 0
    kept = rsd.home / "a.jsonl"
    header, first, second, _ = kept.read_text().split("\n")
    kept.write_text(f"{header}\n{first}\n{second[:30]}")
    done = rsd(*args, "--rows", "3", "--record", "a.jsonl")
    assert done.code == 0, done.err
    assert kept.read_text().startswith(f"{header}\n{first}\n")
    ids = [json.loads(line)["id"] for line in kept.read_text().split("\n")[1:-1]]
    assert sorted(ids) == ["0", "1", "2"]
    rsd(*args, "--record", "notes.txt").refused(5, "notes.txt", "no record")
    assert (rsd.home / "notes.txt").read_text() == "mine"
    rsd(*args, "--record", ".").refused(2, "no regular file")
    path = rsd.home / "questions.jsonl"
    path.write_text(path.read_text().replace("What is 0", "How much is 0"))
    rsd(*args, "--record", "a.jsonl").refused(5, "another question", "--record")


def test_steps_without_a_reward_are_counted_and_null(rsd):
    args = ["prm", "calibrate", questions(rsd.home), "--trio", "tiny", "--rows", "2", "-n", "20", *SHORT]
    plain = rsd(*args, "--record", "a.jsonl")
    assert "without a reward" not in plain.out
    header, *lines = (rsd.home / "a.jsonl").read_text().split("\n")[:-1]
    answers = [json.loads(line) for line in lines]
    answers[0]["steps"][0]["reward"] = None
    (rsd.home / "a.jsonl").write_text("".join(f"{line}\n" for line in (header, *map(json.dumps, answers))))
    n_steps = sum(len(answer["steps"]) for answer in answers)
    assert f"1 of {n_steps} steps without a reward" in rsd(*args, "--record", "a.jsonl").out
    done = rsd(*args, "--record", "a.jsonl", "--json")
    report = json.loads(done.out, parse_constant=pytest.fail)
    assert len(report["rewards"]) == n_steps
    assert report["rewards"].count(None) == 1
    assert report["curve"][0]["target_share"] > 0


def test_a_question_that_is_too_long_is_left_out_and_counted(rsd, tiny):
    files = {"long": tiny(seed=1, n_ctx_train=4096), "short": tiny(seed=2, n_ctx_train=512)}
    rsd.write_models(declared(files, {"uneven": trio("long", "short"), "even": trio("short", "short")}))
    long = questions(rsd.home, n=4, long={1: 600, 3: 600})  # for the target
    args = ("prm", "calibrate", long, "--trio", "uneven", "-n", "30", "--record", "a.jsonl", *SHORT)
    shown = rsd(*args, "--at", "0.5")
    assert shown.code == 0, shown.err
    assert "2 questions" in shown.out
    assert "without 2 more that are too long" in shown.out
    again = json.loads(rsd(*args, "--at", "0.5", "--json").out)
    assert again["left_out"] == 2
    assert [run["threshold"] for run in again["runs"]] == [0, 0.5, 1]
    questions(rsd.home, n=2, long={0: 600, 1: 600})
    refused = rsd("prm", "calibrate", "questions.jsonl", "--trio", "even", "-n", "9", *SHORT)
    assert refused.code == 2
    assert "All questions are too long" in refused.err


def test_thresholds_of_ones_own_are_measured(rsd):
    args = ("prm", "calibrate", questions(rsd.home), "--trio", "judged", "--rows", "3", "-n", "30", *SHORT)
    done = rsd(*args, "--at", "0.3, 0.7", "--json")
    assert done.code == 0, done.err
    assert [run["threshold"] for run in json.loads(done.out)["runs"]] == [0, 0.3, 0.7, 1]
    rsd(*args, "--at", "much").refused(2, "'much'")


def test_questions_without_answers_can_not_be_graded(rsd):
    (rsd.home / "q.jsonl").write_text('{"question": "What?"}\n')
    rsd("prm", "calibrate", "q.jsonl", "--sweep", "1").refused(2, "Line 1", "no answer")
    rsd("prm", "calibrate", "gone.jsonl").refused(2, "gone.jsonl")
    (rsd.home / "empty.jsonl").write_text("\n")
    rsd("prm", "calibrate", "empty.jsonl").refused(2, "empty")


BIG = {"model.embed_tokens.weight": np.zeros((250_000, H), np.float32)}


@pytest.mark.parametrize("stored", ["safetensors", "pytorch"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_head_is_imported_from_a_hub_by_its_bytes_alone(layout, stored, rsd):
    tensors, activation, classes, separator = LAYOUTS[layout]
    name, made = (
        ("model.safetensors", safetensors) if stored == "safetensors" else ("pytorch_model.bin", pytorch_bin)
    )
    with serving("some/prm") as hub:
        hub.files = {name: made(BIG | tensors), "config.json": b"{}"}
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        done = rsd("prm", "import", "some/prm", "-o", "h.safetensors", env=env)
    assert done.code == 0, done.err
    head = load_head(rsd.home / "h.safetensors")
    assert (head.hidden_size, head.n_vocab) == (H, 250_000)
    assert (head.activation, head.classes, head.separator) == (activation, classes, separator)
    assert head.facts["commit"] == COMMIT
    declared = {"skywork": "skywork", "qwen": "qwen-prm", "reasoneval": "reasoneval"}.get(layout, "trl")
    assert f"family: value-head, layout: {declared}, head: h.safetensors" in done.err
    assert hub.sent < 1_000_000 < len(hub.files[name])
    assert done.out.strip() == "h.safetensors"


def test_a_head_is_imported_from_a_directory(rsd):
    write(rsd.home / "m", {"model.safetensors": safetensors({"score.weight": np.ones((2, 8), np.float32)})})
    done = rsd("prm", "import", "m", "-o", "h.safetensors", "--separator", r"\n\n")
    assert done.code == 0, done.err
    assert load_head(rsd.home / "h.safetensors").separator == "\n\n"
    assert "guess" not in done.err
    assert "'\\n' is a guess" in rsd("prm", "import", "m", "-o", "h.safetensors").err
    rsd("prm", "import", "nothing-here", "-o", "h.safetensors").refused(2, "nothing-here")


def test_a_head_is_written_over_nothing_but_a_head(rsd):
    head = {"score.weight": np.ones((2, 8), np.float32)}
    write(rsd.home / "m", {"model.safetensors": safetensors(head)})
    write(rsd.home, {"notes.txt": b"mine", "other.safetensors": safetensors(head)})
    outputs = ("m/model.safetensors", "notes.txt", "other.safetensors")
    before = {output: (rsd.home / output).read_bytes() for output in outputs}
    for output in outputs:
        rsd("prm", "import", "m", "-o", output).refused(2, output, "no head")
        training = ("prm", "train", questions(rsd.home), "--work", "work", "--model", "draft", "-o", output)
        rsd(*training).refused(2, output, "no head")
    assert {output: (rsd.home / output).read_bytes() for output in outputs} == before
    assert not (rsd.home / "work").exists()
    rsd("prm", "import", "m", "-o", "gone/h.safetensors").refused(2, "gone is no folder")
    pickled = write(rsd.home / "p", {"pytorch_model.bin": pytorch_bin(head)})
    rsd("prm", "import", "p", "-o", "p/model.safetensors").refused(2, "checkpoint's weights")
    assert [path.name for path in pickled.iterdir()] == ["pytorch_model.bin"]
    assert rsd("prm", "import", "p", "-o", "p/head.safetensors", "--separator", "a").code == 0
    assert rsd("prm", "import", "p", "-o", "p/head.safetensors", "--separator", "b").code == 0
    assert load_head(pickled / "head.safetensors").separator == "b"


COMMANDS = {
    "import": ("import", "m"),
    "convert": ("convert", "m", "--base", "draft"),
    "train": ("train", "questions.jsonl", "--work", "work", "--model", "draft"),
}


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("heads/", "heads can't be written: it is a folder."),
        (".", ". can't be written: it is a folder."),
        ("..", ".. can't be written: it is a folder."),
        ("/", "/ can't be written: it is a folder."),
        ("", ". can't be written: it is a folder."),
        ("pipe", "pipe can't be written: it is no regular file."),
    ],
)
@pytest.mark.parametrize("command", ["import", "train"])
def test_a_head_that_can_not_be_written_is_refused_before_the_work(command, output, words, rsd):
    questions(rsd.home)
    write(rsd.home / "m", {"model.safetensors": safetensors({"score.weight": np.ones((2, 8), np.float32)})})
    (rsd.home / "heads").mkdir()
    os.mkfifo(rsd.home / "pipe")
    rsd("prm", *COMMANDS[command], "-o", output).refused(2, words, "-o FILE")
    assert not (rsd.home / "work").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_can_not_be_written_to_is_refused_before_the_work(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write to any
    (tmp_path / "locked").mkdir()
    done = CliRunner().invoke(prm.app, [*COMMANDS[command], "-o", "locked/made"])
    assert str(done.exception) == "locked can't be written to."
    assert [path.name for path in tmp_path.iterdir()] == ["locked"]


@pytest.mark.parametrize("command", ["import", "convert"])
def test_a_checkpoint_that_is_none_is_refused_before_the_hub_is_asked(command, rsd, tiny):
    files = write(rsd.home / "m", {"model.safetensors": safetensors({"score.weight": np.ones((2, 8))})})
    more = ("-o", "out", *(("--base", str(tiny())) if command == "convert" else ()))
    rsd("prm", command, "m/model.safetensors", *more).refused(2, "is a file", "directory: m")
    rsd("prm", command, str(files / "model.safetensors"), *more).refused(2, "is a file")
    for name in ("a b/c", "hf://a", "a/b/c", "../m", "a/b@", "a/b:Q8_0", "hf://a/b/x.gguf"):
        rsd("prm", command, name, *more).refused(2, "neither a directory nor a repository")
    rsd("prm", command, "a/b@main", "--revision", "other", *more).refused(2, "main", "other")
    rsd("prm", command, "m", "--revision", "other", *more).refused(2, "'m' is a directory", "other", "out")


@pytest.mark.parametrize("name", ["some/prm@v2", "hf://some/prm@v2"])
def test_a_revision_may_stand_behind_the_repository(name, rsd):
    with serving("some/prm") as hub:
        hub.files = {"model.safetensors": safetensors(LAYOUTS["trl"][0])}
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        done = rsd("prm", "import", name, "-o", "h.safetensors", env=env)
    assert done.code == 0, done.err
    assert [path for path in hub.asked if path.endswith("/revision/v2")]


def test_a_head_for_another_model_is_refused_with_both_numbers(rsd):
    write(rsd.home / "m", {"model.safetensors": safetensors({"score.weight": np.ones((2, 999), np.float32)})})
    rsd("prm", "import", "m", "-o", "h.safetensors")
    text = (rsd.home / "models.yaml").read_text()
    rsd.write_models(
        text.replace("family: judge", "family: value-head\n    layout: trl\n    head: h.safetensors")
    )
    rsd("ask", "What?", "--trio", "judged", "-n", "5").refused(3, "999", "64")
