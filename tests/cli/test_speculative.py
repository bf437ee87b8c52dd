"""`--strategy speculative` and `--speculative` as a user gives them."""

from __future__ import annotations

import json

import pytest

from tests.cli.command import declared, trio

QUESTION = "What is 1 + 2? Hello World"
FEW = ("-n", "60", "--max-steps", "6", "--threads", "1")


@pytest.fixture
def pair(rsd, tiny):
    """Trios of one vocabulary (`pair`), of one file (`alike`), of two vocabularies (`strangers`)."""
    files = {
        "draft": tiny(seed=1),
        "target": tiny(seed=2),
        "other": tiny("other", seed=2),
        "recurrent": tiny("mamba"),
    }
    trios = {
        "pair": trio("draft", "target", threshold=0.5),
        "alike": trio("target", "target"),
        "strangers": trio("draft", "other"),
        "recurrent": trio("recurrent", "target"),
    }
    rsd.write_models(declared(files, trios))
    return rsd


def record(done):
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.mark.parametrize("name", ["pair", "alike"])
def test_the_answer_is_the_targets_own_and_says_what_was_proposed(name, pair):
    made = record(pair("ask", QUESTION, "--json", "--trio", name, "--strategy", "speculative", *FEW))
    alone = record(pair("ask", QUESTION, "--json", "--trio", name, "--strategy", "target", *FEW))
    assert made["answer"] == alone["answer"]
    assert [step["author"] for step in made["steps"]] == ["target"] * len(alone["steps"])
    draft, target = made["usage"]["draft"], made["usage"]["target"]
    assert target["generated"] == sum(step["tokens"] for step in made["steps"])
    assert draft["generated"] > 0
    if name == "alike":
        assert draft["discarded"] < draft["generated"] / 2
    for role in ("draft", "target"):
        decoded = made["usage"][role]["fed"] + made["usage"][role]["generated"]
        assert made["flops"][role] == 2.0 * made["models"][role]["parameters"] * decoded


def test_rsd_may_let_its_target_write_over_proposals(pair):
    made = record(
        pair("ask", QUESTION, "--json", "--trio", "pair", "--speculative", "--threshold", "1", *FEW)
    )
    assert {step["author"] for step in made["steps"]} == {"target"}
    assert all("rejected" in step for step in made["steps"])
    assert made["settings"]["speculative"] is True
    assert made["strategy"] == "rsd"
    in_vain = sum(step["rejected"]["tokens"] for step in made["steps"])
    assert made["usage"]["draft"]["generated"] > in_vain


def test_a_batch_may_be_speculative(pair):
    lines = [json.dumps({"id": f"r{i}", "question": f"What is {i} + {i}? Hello"}) for i in range(9)]
    (pair.home / "questions.jsonl").write_text("\n".join(lines))
    command = ("--trio", "alike", *FEW, "--parallel", "4")
    answers = {}
    for strategy in ("speculative", "target"):
        done = pair("batch", "questions.jsonl", "-o", f"{strategy}.jsonl", "--strategy", strategy, *command)
        assert done.code == 0, done.err
        rows = [json.loads(line) for line in (pair.home / f"{strategy}.jsonl").read_bytes().splitlines()]
        answers[strategy] = {row["custom_id"]: row["rsd"]["samples"][0] for row in rows}
    assert answers["speculative"].keys() == answers["target"].keys()
    for sample in answers["speculative"].values():
        assert sample["strategy"] == "speculative"
        assert sample["usage"]["draft"]["generated"] > sample["usage"]["draft"]["discarded"]


@pytest.mark.parametrize("arguments", [("--strategy", "speculative"), ("--speculative",)])
@pytest.mark.parametrize(("name", "said"), [("strangers", "vocabular"), ("recurrent", "recurrent")])
def test_models_that_are_no_pair_are_refused_once(name, said, arguments, pair):
    if arguments == ("--strategy", "speculative"):
        pair("ask", QUESTION, "--trio", name, *arguments).refused(3, said)
    (pair.home / "questions.jsonl").write_text('{"id": 1, "question": "a"}\n{"id": 2, "question": "b"}\n')
    command = ("batch", "questions.jsonl", "-o", "answers.jsonl", "--trio", name, "--threads", "1", "--quiet")
    pair(*command, *arguments).refused(3, said)


def test_a_conversation_may_become_speculative(pair):
    turns = [
        "What is 1 + 2?",
        "/set speculative on",
        "And 2 + 2?",
        "/set strategy target",
        "/set speculative on",
        "3?",
    ]
    command = ("chat", "--trio", "alike", "--threshold", "1", "--json", "--no-log", *FEW)
    done = pair(*command, stdin="\n".join([*turns, ""]).encode())
    assert done.code == 1
    assert "/set speculative on needs a draft and a target, --strategy target has a target only." in done.err
    plain, speculative, alone = map(json.loads, done.out.splitlines())
    assert [each["settings"]["speculative"] for each in (plain, speculative, alone)] == [False, True, True]
    for each in (plain, speculative):
        in_vain = sum(step["rejected"]["tokens"] for step in each["steps"])
        assert (each["usage"]["draft"]["discarded"] < in_vain) == (each is speculative)
    assert alone["usage"]["draft"]["generated"] == 0


@pytest.mark.parametrize(("name", "said"), [("strangers", "vocabular"), ("recurrent", "recurrent")])
def test_models_that_are_no_pair_are_refused_at_the_first_question_that_needs_one(name, said, pair):
    every = ("--trio", name, "--threshold", "0", "--no-log", *FEW)
    pair("ask", QUESTION, *every, "--speculative").refused(3, said)
    done = pair(
        "chat", *every, stdin=b"What is 1 + 2?\n/set speculative on\nAnd?\n/set speculative off\nAnd?\n"
    )
    assert done.code == 1
    assert said in done.err
    assert len(done.out.splitlines()) >= 2


@pytest.mark.parametrize("strategy", ["draft", "target"])
@pytest.mark.parametrize("command", [("ask", QUESTION), ("batch", "questions.jsonl", "-o", "answers.jsonl")])
def test_a_model_alone_has_nobody_to_propose(command, strategy, pair):
    (pair.home / "questions.jsonl").write_text('{"id": 1, "question": "a"}\n')
    done = pair(*command, "--trio", "pair", "--strategy", strategy, "--speculative")
    done.refused(2, f"--strategy {strategy} has a {strategy} only", "--strategy speculative")
