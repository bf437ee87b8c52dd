"""`rsd ask` and `rsd batch` with every strategy on tiny trios, and what does not go together."""

from __future__ import annotations

import json

import pytest

from rsd_cli.decoding.choosing import majority
from tests.cli.test_ask import KEYS, record

QUESTION = "What is 1 + 2?"
WARM = ("--temperature", "0.8", "-n", "40", "--max-steps", "4")
STEPWISE = {
    "keep-better": "judged",
    "rsd-n@2": "judged",
    "gsi@2": "alike",
    "judge": "tiny",
    "glimpse": "tiny",
    "glimpse:target": "tiny",
    "confidence": "tiny",
    "first-k-by-target@1": "tiny",
    "process-best-of-n@2": "judged",
    "beam@2": "tiny",
}


def asked(rsd, strategy, trio="judged", *more):
    return record(rsd("ask", QUESTION, "--json", "--trio", trio, "--strategy", strategy, *WARM, *more))


@pytest.mark.parametrize("strategy", STEPWISE)
def test_a_strategy_answers_and_the_record_names_it(strategy, rsd):
    made = asked(rsd, strategy, STEPWISE[strategy])
    assert list(made) == KEYS
    assert made["strategy"] == strategy
    assert made["answer"] == "".join(step["text"] for step in made["steps"])
    for role in ("draft", "target"):
        kept = sum(step["tokens"] for step in made["steps"] if step["author"] == role)
        assert made["usage"][role]["generated"] == kept + made["usage"][role]["discarded"]


def test_candidates_that_were_not_taken_stand_in_the_record(rsd):
    made = asked(rsd, "process-best-of-n@3")
    for step in made["steps"]:
        assert len(step["others"]) == 2
        for other in step["others"]:
            assert set(other) == {"text", "author", "reward", "tokens"}
            assert other["reward"] <= step["reward"]


def test_a_strategy_with_its_own_scale_has_its_own_threshold(rsd):
    assert asked(rsd, "judge", "tiny")["settings"]["threshold"] == pytest.approx(7 / 9)
    assert asked(rsd, "judge", "tiny", "--threshold", "0.2")["settings"]["threshold"] == 0.2
    assert asked(rsd, "keep-better", "judged")["settings"]["threshold"] == 0.5


@pytest.mark.parametrize(("strategy", "trio"), [("majority@3", "tiny"), ("best-of-n@3:target", "judged")])
def test_of_several_answers_one_is_delivered_with_the_cost_of_all(strategy, trio, rsd):
    made = asked(rsd, strategy, trio)
    assert set(made) == {*KEYS, "samples"}
    samples = made["samples"]
    assert len(samples) == 3
    author = "target" if "target" in strategy else "draft"
    assert made["usage"][author]["generated"] == sum(sample["tokens"] for sample in samples)
    if trio == "judged":
        scores = [sample["score"] for sample in samples]
        assert made["steps"][-1]["reward"] == max(scores)
    most = majority([sample["final_answer"] for sample in samples])
    assert trio == "judged" or made["final_answer"] == (most.answer if most else None)


def test_several_answers_off_a_terminal_are_one_answer_on_stdout(rsd):
    done = rsd("ask", QUESTION, "--strategy", "majority@2", *WARM)
    assert done.code == 0, done.err
    assert done.out.strip()
    assert done.err == ""


def test_the_weighting_and_the_budget_reach_the_settings(rsd):
    made = asked(rsd, "rsd", "judged", "--weighting", "constant:p=0")
    assert made["settings"]["weighting"] == "constant:p=0"
    assert {step["author"] for step in made["steps"]} == {"target"}
    made = asked(rsd, "rsd", "judged", "--target-share", "1", "--share-per", "problem")
    assert (made["settings"]["target_share"], made["settings"]["share_per"]) == (1, "problem")
    assert {step["author"] for step in made["steps"]} == {"target"}
    assert {step["author"] for step in asked(rsd, "rsd", "tiny", "--target-share", "0")["steps"]} == {"draft"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--strategy", "majorty@8"], ["'majorty@8'", "Did you mean 'majority'?"]),
        (["--strategy", "rsd@3"], ["Leave it out"]),
        (["--strategy", "majority@4"], ["temperature 0", "4 times", "--temperature 0.7"]),
        (["--strategy", "beam@2", "--temperature", "0"], ["temperature 0"]),
        (["--weighting", "logistc"], ["'logistc'", "logistic"]),
        (["--weighting", "constant:p=3"], ["can't use 'p=3'", "p is a number from 0 to 1"]),
        (["--weighting", "logistic:alpha=x"], ["can't use 'alpha=x'", "like logistic:alpha=10"]),
        (["--weighting", "clip:p=1"], ["has no parameter 'p'"]),
        (["--target-share", "0.2", "--threshold", "0.5"], ["Leave out --threshold"]),
        (["--target-share", "0.2", "--weighting", "clip"], ["Leave out"]),
        (["--target-share", "0.2", "--share-per", "step"], ["'step'", "run, problem"]),
        (["--aggregate", "max"], ["'max'", "last, min, product, mean"]),
        (["--share-per", "run"], ["--share-per run means nothing", "Add --target-share"]),
        (["--beta", "3"], ["--beta 3 means nothing with --strategy rsd", "rsd-n, gsi, process-best-of-n"]),
        (["--strategy", "best-of-n@2", "--beta", "3"], ["means nothing with --strategy best-of-n@2"]),
        (["--aggregate", "last"], ["--aggregate last means nothing", "best-of-n"]),
        (["--strategy", "majority@2", "--aggregate", "min"], ["means nothing with --strategy majority@2"]),
    ],
)
def test_what_does_not_go_together_is_refused(options, words, rsd):
    rsd("ask", QUESTION, *options).refused(2, *words)


def test_options_that_mean_something_reach_the_settings(rsd):
    made = asked(rsd, "process-best-of-n@2", "judged", "--beta", "3")
    assert made["settings"]["beta"] == 3
    assert asked(rsd, "best-of-n@2", "judged", "--aggregate", "min")["settings"]["aggregate"] == "min"


def test_two_vocabularies_are_refused_where_one_is_needed(rsd):
    rsd("ask", QUESTION, "--trio", "judged", "--strategy", "gsi@2", *WARM).refused(2, "one vocabulary")


def test_a_batch_says_so_before_the_first_row(rsd, ask, tmp_path):
    ask(ROWS[:2])
    batch(rsd, "--trio", "judged", "--strategy", "gsi@2").refused(2, "one vocabulary")
    assert lines(tmp_path) == []


@pytest.mark.parametrize("strategy", ["gsi@2", "speculative"])
def test_a_batch_says_so_in_every_row_that_asks_for_it(strategy, rsd, ask, tmp_path):
    ask([row | {"strategy": strategy} for row in ROWS[:2]])
    assert batch(rsd, "--trio", "judged").code == 1
    assert [one["error"]["code"] for one in lines(tmp_path)] == ["unsupported"] * 2


@pytest.fixture
def ask(tmp_path):
    def write(rows):
        (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return "questions.jsonl"

    return write


ROWS = [{"id": f"r{i}", "question": f"What is {i} + {i}?"} for i in range(5)]


def batch(rsd, *options):
    return rsd("batch", "questions.jsonl", "-o", "answers.jsonl", "--threads", "1", *WARM, *options)


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("strategy", "trio", "samples"),
    [("majority@3", "tiny", 3), ("best-of-n@2", "judged", 2), ("rsd-n@2", "judged", 1)],
)
def test_a_batch_takes_as_many_samples_as_the_strategy_says(strategy, trio, samples, rsd, ask, tmp_path):
    ask(ROWS)
    done = batch(rsd, "--strategy", strategy, "--trio", trio, "-p", "4")
    assert done.code == 0, done.err
    made = lines(tmp_path)
    assert sorted(one["custom_id"] for one in made) == [row["id"] for row in ROWS]
    for one in made:
        ours = one["rsd"]
        assert len(ours["samples"]) == samples
        assert {sample["strategy"] for sample in ours["samples"]} == {strategy}
        assert ours["final_answer"] in {sample["final_answer"] for sample in ours["samples"]}
    assert batch(rsd, "--strategy", strategy, "--trio", trio, "-p", "4").code == 0
    assert len(lines(tmp_path)) == len(ROWS)


def test_a_batch_with_another_method_is_not_mixed_in(rsd, ask):
    ask(ROWS[:2])
    assert batch(rsd, "--weighting", "clip").code == 0
    for other in (["--weighting", "sigmoid"], ["--target-share", "0.3"], ["--strategy", "judge"], []):
        batch(rsd, *other).refused(5, "answers.jsonl")


def test_a_row_may_choose_a_strategy_that_the_run_has_room_for(rsd, ask, tmp_path):
    own = ["keep-better", "draft", "majority@2", "beam@16", "gibberish", "judge"]
    ask([{"id": name, "question": "What is it?", "strategy": name} for name in own])
    done = batch(rsd, "--trio", "judged", "-p", "4")
    assert done.code == 1
    made = {one["custom_id"]: one for one in lines(tmp_path)}
    messages = {name: one["error"]["message"] for name, one in made.items() if one["error"]}
    assert set(messages) == {"majority@2", "beam@16", "gibberish"}
    assert "2 samples, this run takes 1" in messages["majority@2"]
    assert "64 seats, this run has 4" in messages["beam@16"]
    assert "'gibberish' is unknown" in messages["gibberish"]
    (judged,) = made["judge"]["rsd"]["samples"]
    assert judged["settings"]["threshold"] == pytest.approx(7 / 9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--strategy", "majority@3", "--samples", "2"], ["--samples 2", "Leave --samples out"]),
        (["--strategy", "beam@8", "-p", "9"], ["288 seats", "--parallel 8"]),
        (["--reproducible", "--target-share", "0.2"], ["--share-per problem"]),
    ],
)
def test_what_a_batch_can_not_do_is_refused(options, words, rsd, ask):
    ask(ROWS)
    batch(rsd, *options).refused(2, *words)
