"""`rsd eval` on tiny models: one command, resumed, refused, compared, and what it leaves in its folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from rsd_cli.cli.eval_plan import contenders
from tests.cli.command import ENTRY, ended, wait_for_lines

PINNED = "cc7b047b6e5bb11b4f1af84efc572db110a51b3c"  # GSM8K's commit
STRATEGIES = "rsd,target,draft,majority@3,best-of-n@2,beam@2,rsd/threshold=0.6"
COMMON = (
    "--trio",
    "judged",
    "--threads",
    "1",
    "-n",
    "40",
    "--max-steps",
    "4",
    "-p",
    "8",
    "-o",
    "out",
)


@pytest.fixture
def rows(rsd):
    """A file of questions in the form of GSM8K."""
    path = rsd.home / "rows.jsonl"
    lines = [
        {"question": f"What is {i} + {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i}"} for i in range(6)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def evaluate(rsd, rows, *arguments, strategies=STRATEGIES):
    return rsd("eval", "gsm8k", "--data", str(rows), "--strategies", strategies, *COMMON, *arguments)


def results(rsd):
    newest = sorted((rsd.home / "out").glob("results_*.json"))[-1]
    return json.loads(newest.read_text())


def samples(rsd, name):
    path = rsd.home / "out" / f"samples_gsm8k_{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_command_gives_table_results_and_report(rsd, rows):
    done = evaluate(rsd, rows, "--limit", "5")
    assert done.code == 0, done.err
    for name in STRATEGIES.split(","):
        assert name in done.out
    assert "only 5 of 1,319 questions" in done.out
    assert "\x1b" not in done.out
    found = results(rsd)
    assert set(found["n"]["gsm8k"].values()) == {5}
    assert not found["comparable"]
    assert {len(line["rsd"]["branches"]) for line in samples(rsd, "majority@3")} == {3}
    assert all(
        branch["score"] is not None
        for line in samples(rsd, "best-of-n@2")
        for branch in line["rsd"]["branches"]
    )
    assert (rsd.home / "out" / "report.html").read_text().startswith("<!doctype html>")
    assert "rsd" in (rsd.home / "out" / "results.md").read_text()


def test_names_that_are_no_text_do_no_harm(rsd, rows):
    rows.rename(rsd.home / os.fsdecode(b"r\xe9.jsonl"))
    args = ("eval", "gsm8k", "--data", b"r\xe9.jsonl", "--strategies", "draft", *COMMON[:-1], b"o\xff")
    for limit in ("1", "2"):
        done = rsd(*args, "--limit", limit)
        assert done.code == 0, done.err
    (kept,) = (rsd.home / os.fsdecode(b"o\xff")).glob("run.json")
    settings = json.loads(kept.read_text())["settings"]
    assert os.fsencode(settings["data"]["gsm8k"]["place"]) == b"r\xe9.jsonl"
    assert rsd("eval", "compare", b"o\xff", b"o\xff").code == 0


@pytest.mark.parametrize("strategies", ["rsd,target", "target,rsd"])
def test_the_verdict_knows_what_a_full_batch_takes_the_target(strategies, rsd, rows):
    assert evaluate(rsd, rows, strategies=strategies).code == 0
    found = results(rsd)
    known = found["paces"]["gsm8k"]["rsd"]["target"]
    assert [decodes >= 8 for size, decodes, _ in known if size == 8] == [True]
    assert found["verdicts"]["gsm8k"]["time"]["predicted"] > 0


def test_two_vocabularies_are_refused_before_the_first_question(rsd, rows):
    evaluate(rsd, rows, strategies="rsd,gsi@2").refused(2, "one vocabulary")
    assert not list((rsd.home / "out").glob("samples_*"))


def test_a_model_that_can_be_asked_nothing_is_refused_before_the_first_question(rsd, rows, tiny):
    bare = str(tiny("plain"))
    evaluate(rsd, rows, "--target", bare, strategies="draft,rsd").refused(3, "no chat template", "instruct")
    assert not list((rsd.home / "out").glob("samples_*"))


def test_the_results_have_the_flops_of_every_record(rsd, rows):
    assert evaluate(rsd, rows).code == 0
    found = results(rsd)["results"]["gsm8k"]
    for name in ("rsd", "target", "draft", "majority@3", "beam@2"):
        total = 0.0
        for line in samples(rsd, name):
            for branch in line["rsd"]["branches"]:
                record = branch["record"]
                for role, used in record["usage"].items():
                    if role in record["models"]:
                        total += 2 * record["models"][role]["parameters"] * (used["fed"] + used["generated"])
        assert found[name]["flops"]["total"] == pytest.approx(total, rel=0.01)


def test_the_table_and_the_budgets_agree_on_all_samples(rsd, rows):
    assert evaluate(rsd, rows, strategies="majority@3,best-of-n@2").code == 0
    found = results(rsd)["results"]["gsm8k"]
    for name, choice, n in (("majority@3", "majority", 3), ("best-of-n@2", "best", 2)):
        (budget,) = (b for b in found[name]["budgets"] if (b["choice"], b["n"]) == (choice, n))
        assert budget["right"] == found[name]["right"]


def test_all_done_asks_no_model_again(rsd, rows):
    assert evaluate(rsd, rows, strategies="rsd,draft").code == 0
    before = samples(rsd, "rsd")
    again = evaluate(rsd, rows, strategies="rsd,draft")
    assert again.code == 0
    assert "questions" not in again.err, "nothing was answered"
    assert samples(rsd, "rsd") == before


def test_a_finished_run_that_is_run_again_keeps_its_results(rsd, rows):
    assert evaluate(rsd, rows, strategies="draft").code == 0
    files = [*(rsd.home / "out").glob("results*"), rsd.home / "out" / "report.html"]
    before = [file.read_bytes() for file in files]
    time.sleep(1.1)  # a time of the day has seconds
    assert evaluate(rsd, rows, "--quiet", strategies="draft").code == 0
    assert [file.read_bytes() for file in files] == before
    assert sorted((rsd.home / "out").glob("results_*.json")) == [f for f in files if f.suffix == ".json"]
    assert evaluate(rsd, rows, "--limit", "2", strategies="draft").code == 0
    assert len(list((rsd.home / "out").glob("results_*.json"))) == 2
    assert results(rsd)["n"]["gsm8k"]["draft"] == 2


def test_results_say_what_made_them_and_an_older_folder_goes_on(rsd, rows):
    assert evaluate(rsd, rows, strategies="draft").code == 0
    found = results(rsd)
    assert found["command"].startswith(f"rsd eval gsm8k --data {rows} --strategies draft")
    assert {len(sha) for sha in found["chat_template_sha"].values()} == {64}
    assert set(found["chat_template_sha"]) == {"draft"}
    assert "math_verify" not in found["versions"], "no formula was graded"
    manifest, (path,) = rsd.home / "out" / "run.json", (rsd.home / "out").glob("results_*.json")
    known = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({key: known[key] for key in known if key not in ("ended", "made")}))
    for key in ("command", "chat_template_sha"):
        found.pop(key)
    found["times"]["ended"] = "2026-05-01T11:30:00+0000"
    path.write_text(json.dumps(found))
    assert rsd("eval", "compare", "out", "out").code == 0
    again = evaluate(rsd, rows, strategies="draft")
    assert again.code == 0, again.err
    assert (results(rsd)["times"]["ended"], results(rsd)["command"]) == ("2026-05-01T11:30:00+0000", "")


def test_a_task_with_formulas_names_what_grades_them(rsd):
    (rsd.home / "maths.jsonl").write_text('{"problem": "What is x + x?", "answer": "2x"}\n')
    done = rsd("eval", "math500", "--data", "maths.jsonl", "--strategies", "draft", *COMMON)
    assert done.code == 0, done.err
    assert results(rsd)["versions"]["math_verify"]


def test_more_questions_and_more_strategies_go_on(rsd, rows):
    assert evaluate(rsd, rows, "--limit", "2", strategies="rsd").code == 0
    first = samples(rsd, "rsd")
    assert evaluate(rsd, rows, "--limit", "4", strategies="rsd,target").code == 0
    assert samples(rsd, "rsd")[:2] == first
    assert {line["doc_id"] for line in samples(rsd, "target")} == {0, 1, 2, 3}


def test_strategies_share_what_one_of_them_draws(rsd, rows):
    names = "majority@2,best-of-n@3,majority@3/temperature=1.5"
    done = evaluate(rsd, rows, strategies=names)
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "majority@2 chooses among what best-of-n@3 drew" in said
    assert said.count("chooses among") == 1
    given = {line["doc_id"]: line["resps"][0] for line in samples(rsd, "best-of-n@3")}
    taken = {line["doc_id"]: line["resps"][0] for line in samples(rsd, "majority@2")}
    assert taken == {number: texts[:2] for number, texts in given.items()}
    found = results(rsd)
    assert found["drawn_by"]["gsm8k"]["majority@2"] == "best-of-n@3"
    assert found["wall_seconds"]["gsm8k"]["majority@2"] is None
    (rsd.home / "out" / "samples_gsm8k_majority@2.jsonl").unlink()
    assert evaluate(rsd, rows, strategies=names).code == 0
    assert {line["doc_id"]: line["resps"][0] for line in samples(rsd, "majority@2")} == taken


def test_the_targets_answers_can_be_chosen_among_by_its_own_confidence(rsd, rows):
    """That PRM has no model, and the draft, which it otherwise goes by, is none of this run's."""
    done = evaluate(rsd, rows, "--trio", "tiny", "--limit", "2", strategies="target,best-of-n@2:target")
    assert done.code == 0, done.err
    (path,) = (rsd.home / "out").glob("samples_gsm8k_best-of-n*")
    judged = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(judged) == 2
    assert all(0 < branch["score"] < 1 for line in judged for branch in line["rsd"]["branches"])


def test_what_is_shared_is_what_would_have_been_drawn(rsd, rows):
    """The n-th answer to a question has a seed of its own, whichever strategy draws it."""
    one_at_a_time = ("--parallel", "1")
    assert evaluate(rsd, rows, *one_at_a_time, strategies="majority@3").code == 0
    drawn = {line["doc_id"]: line["resps"][0] for line in samples(rsd, "majority@3")}
    both = evaluate(rsd, rows, *one_at_a_time, strategies="best-of-n@3,majority@3")
    assert both.code == 0
    assert {line["doc_id"]: line["resps"][0] for line in samples(rsd, "best-of-n@3")} == drawn
    assert "chooses among" not in both.out, "it had drawn its own"
    assert results(rsd)["wall_seconds"]["gsm8k"]["majority@3"] > 0


def test_other_settings_do_not_mix(rsd, rows):
    assert evaluate(rsd, rows, strategies="rsd").code == 0
    other = rsd("eval", "gsm8k", "--data", str(rows), "--strategies", "rsd", *COMMON, "--seed", "3")
    other.refused(5, "made with other settings", "seed was 0, now 3")


def test_rows_that_were_moved_are_the_same_rows(rsd, rows):
    assert evaluate(rsd, rows, strategies="draft").code == 0
    moved = rows.rename(rsd.home / "moved.jsonl")
    again = evaluate(rsd, moved, strategies="draft")
    assert again.code == 0, again.err
    assert "questions" not in again.err, "nothing was answered"
    moved.write_text(moved.read_text() + "\n")
    evaluate(rsd, moved, strategies="draft").refused(5, "data.gsm8k.sha256")


@pytest.mark.parametrize(
    "change",
    [
        {"settings": []}, {"settings": {}}, {"settings": {"models": [], "data": {}}}, {"paces": {"x": {"draft": 3}}},
        {"settings": {"models": {}, "data": {"gsm8k": 1}}}, {"strategies": {"x": 3}}, {"more": 1},
    ],
)  # fmt: skip
def test_a_manifest_of_another_form_is_refused(change, rsd, rows):
    (rsd.home / "out").mkdir()
    known = {"settings": {}, "started": "2026-05-01T10:00:00+0000", "strategies": {}, "paces": {}}
    (rsd.home / "out" / "run.json").write_text(json.dumps(known | change))
    evaluate(rsd, rows, strategies="draft").refused(5, "run.json is none of rsd eval", "hint: ")


def test_what_stands_in_the_way_of_a_file_is_said(rsd, rows):
    (rsd.home / "out" / "results.md").mkdir(parents=True)
    done = evaluate(rsd, rows, strategies="draft")
    assert done.code == 2
    assert "results.md can't be written: Is a directory" in done.err


def test_a_torn_line_is_answered_again(rsd, rows):
    assert evaluate(rsd, rows, strategies="draft").code == 0
    path = rsd.home / "out" / "samples_gsm8k_draft.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert evaluate(rsd, rows, strategies="draft").code == 0
    lines = samples(rsd, "draft")
    assert sorted(line["doc_id"] for line in lines) == list(range(6))


def test_an_interrupted_run_goes_on(rsd, rows):
    command = (
        "eval", "gsm8k", "--data", str(rows), "--strategies", "draft,target", "--trio", "endless", "--threads", "1",
        "--ctx", "8000", "-n", "200", "--max-steps", "200", "--parallel", "2", "-o", "out",
    )  # fmt: skip
    process = rsd.start(*command)
    kept = rsd.home / "out" / "samples_gsm8k_draft.jsonl"
    wait_for_lines(kept, 1)
    os.kill(process.pid, signal.SIGINT)
    code, _, err = ended(process)
    assert code == 130, err
    assert "the same command goes on" in err
    assert not list((rsd.home / "out").glob("results_*.json"))
    before = kept.read_bytes()
    done = rsd(*command)
    assert done.code == 0, done.err
    assert kept.read_bytes().startswith(before)
    for strategy in ("draft", "target"):
        assert sorted(line["doc_id"] for line in samples(rsd, strategy)) == list(range(6))


def test_one_process_at_a_time_has_a_folder(rsd, rows):
    process = rsd.start(
        "eval", "gsm8k", "--data", str(rows), "--strategies", "draft", "--trio", "endless", "--threads", "1",
        "--ctx", "8000", "-n", "3000", "--max-steps", "3000", "--parallel", "2", "-o", "out",
    )  # fmt: skip
    end = time.monotonic() + 30
    while not (rsd.home / "out" / "run.json").exists() and time.monotonic() < end:
        time.sleep(0.05)
    evaluate(rsd, rows, strategies="target").refused(5, "out is being written by another rsd eval", "hint: ")
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    evaluate(rsd, rows, strategies="draft").refused(5, "made with other settings")


@pytest.fixture
def too_long(rsd, rows):
    """The same with one question among them that no context holds."""
    lines = rows.read_text().splitlines()
    lines[2] = json.dumps({"question": "What is one and one? " * 2000, "answer": "#### 2"})
    rows.write_text("\n".join(lines) + "\n")
    return rows


@pytest.mark.parametrize("strategy", ["draft", "majority@3", "best-of-n@2"])
def test_a_question_that_can_not_be_answered_is_an_error_and_the_others_go_on(strategy, rsd, too_long):
    for _ in range(2):  # the second time nothing is asked
        done = evaluate(rsd, too_long, strategies=strategy)
        assert done.code == 1
        assert "1 without an answer: The question is" in done.err
        assert "1 error" in done.out
        lines = samples(rsd, strategy)
        assert sorted(line["doc_id"] for line in lines) == list(range(6))
        assert [line["doc_id"] for line in lines if line["rsd"]["error"]] == [2]
    assert results(rsd)["results"]["gsm8k"][strategy]["outcomes"]["error"] == 1
    assert evaluate(rsd, too_long, "--retry-errors", strategies=strategy).code == 1
    assert [line["doc_id"] for line in samples(rsd, strategy)].count(2) == 2
    assert results(rsd)["n"]["gsm8k"][strategy] == 6


CRASHES = """
import os, signal
from rsd_cli.decoding.requests import Requests
submit = Requests.submit
def crash(self, trajectory, request):
    if trajectory.problem.id in ("1", "4") and trajectory.settings.strategy == "target":
        os.kill(os.getpid(), signal.SIGSEGV)
    return submit(self, trajectory, request)
Requests.submit = crash
from rsd_cli.__main__ import main
main()
"""


def crashing(rsd, rows, *arguments):
    (rsd.home / "crashes.py").write_text(CRASHES)
    return subprocess.run(
        [ENTRY[0], "crashes.py", "eval", "gsm8k", "--data", str(rows), *COMMON, *arguments],
        capture_output=True, env=rsd.env(), cwd=rsd.home, timeout=120, check=False,
    )  # fmt: skip


def test_questions_that_crash_the_engine_are_found_and_the_others_answered(rsd, rows):
    done = crashing(rsd, rows, "--strategies", "draft,target")
    assert done.returncode == 1, done.stderr
    assert b"2 without an answer: The engine crashed" in done.stderr
    assert sorted(line["doc_id"] for line in samples(rsd, "draft")) == list(range(6))
    failed = {line["doc_id"]: line["rsd"]["error"] is not None for line in samples(rsd, "target")}
    assert failed == {0: False, 1: True, 2: False, 3: False, 4: True, 5: False}


def test_a_failure_is_tried_again_once_and_questions_in_flight_in_a_later_crash_are_asked(rsd, too_long):
    for times in (1, 2):
        done = crashing(rsd, too_long, "--strategies", "draft,target", "--retry-errors")
        assert done.returncode == 1, done.stderr
        asked = {name: Counter(line["doc_id"] for line in samples(rsd, name)) for name in ("draft", "target")}
        once = dict.fromkeys(range(6), 1)
        assert asked == {"draft": once | {2: times}, "target": once | dict.fromkeys((1, 2, 4), times)}


def test_the_time_of_a_strategy_survives_a_kill_and_is_that_of_its_questions(rsd, rows):
    assert evaluate(rsd, rows, strategies="draft,target").code == 0
    took = [line["rsd"]["seconds"] for line in samples(rsd, "draft")]
    assert min(took) >= 0
    assert results(rsd)["wall_seconds"]["gsm8k"]["draft"] == pytest.approx(sum(took))
    manifest = rsd.home / "out" / "run.json"
    known = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(known | {"paces": {}}))  # as a kill would leave it
    assert evaluate(rsd, rows, "--limit", "2", strategies="draft,target").code == 0
    part = [line["rsd"]["seconds"] for line in samples(rsd, "draft") if line["doc_id"] < 2]
    assert results(rsd)["wall_seconds"]["gsm8k"]["draft"] == pytest.approx(sum(part))


PROBED = """
import os, signal
from rsd_cli.cli import eval_run
rates = eval_run.engine_rates
def interrupted(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    return rates(*arguments)
eval_run.engine_rates = interrupted
from rsd_cli.__main__ import main
main()
"""


def test_an_interrupt_while_a_full_batch_is_timed_is_no_error(rsd, rows):
    script = rsd.home / "probed.py"
    script.write_text(PROBED)
    command = ["eval", "gsm8k", "--data", str(rows), "--strategies", "rsd,target", *COMMON]
    done = subprocess.run(
        [ENTRY[0], str(script), *command],
        capture_output=True, env=rsd.env(), cwd=rsd.home, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert b"the same command goes on" in done.stderr
    assert rsd(*command).code == 0
    assert results(rsd)["wall_seconds"]["gsm8k"]["rsd"] > 0


def test_another_reading_of_the_rows_is_another_task(rsd):
    (rsd.home / "mine.jsonl").write_text('{"q": "What is 1 + 2?", "a": "3"}\n')
    declaration = "name: mine\nfile: mine.jsonl\nfields: {question: q, answer: a}\nanswer_type: numeric\n"
    (rsd.home / "mine.yaml").write_text(declaration)
    assert rsd("eval", "mine.yaml", "--strategies", "draft", *COMMON).code == 0
    (rsd.home / "mine.yaml").write_text(f'{declaration}prompt: "Please: {{q}}"\n')
    other = rsd("eval", "mine.yaml", "--strategies", "draft", *COMMON)
    other.refused(5, "made with other settings", "declaration")


def test_two_runs_are_compared(rsd, rows):
    assert evaluate(rsd, rows, strategies="rsd,draft").code == 0
    (rsd.home / "out").rename(rsd.home / "first")
    assert evaluate(rsd, rows, strategies="rsd,draft").code == 0
    done = rsd("eval", "compare", "first", "out")
    assert done.code == 0, done.err
    assert "rsd" in done.out
    found = json.loads(rsd("eval", "compare", "first", "out", "--json").out)
    assert [(pair["task"], pair["first"], pair["second_n"]) for pair in found["pairs"]] == [
        ("gsm8k", "rsd", 6), ("gsm8k", "draft", 6),
    ]  # fmt: skip
    assert found["pairs"][0]["difference"]["n"] == 6
    assert (found["settings"], found["only_first"], found["only_second"]) == ([], [], [])
    assert rsd("eval", "compare", "first", "out", "--no-color").out == done.out
    rsd("eval", "compare", "first").refused(2, "compare takes two folders")
    rsd("eval", "compare", "first", "nowhere").refused(2, "nowhere is not there", "hint: ")


@pytest.mark.parametrize("option", [("--limit", "5"), ("-o", "X"), ("--seed", "0"), ("--quiet",)])
def test_a_comparison_takes_no_options_of_a_run(option, rsd):
    name = {"-o": "--output"}.get(option[0], option[0])
    rsd("eval", "compare", "first", "out", "--json", *option).refused(2, f"takes no {name}.", "hint: ")


@pytest.mark.parametrize(
    ("strategies", "words"),
    [
        ("rds", "is unknown"),
        ("rsd,rsd", "names rsd twice"),
        ("", "names none"),
        ("rsd/threshold", "is no setting"),
        ("rsd/treshold=0.5", "is no setting"),
        ("rsd/threshold=high", "is no possible value"),
        ("rsd/threshold=nan", "is no possible value"),
        ("rsd/threshold=7", "is no possible value"),
        ("rsd/target-share=3", "is no possible value"),
        ("gsi/beta=0", "is no possible value"),
        ("rsd/weighting=", "is no setting"),
        ("rsd/threshold=0.5/threshold=0.6", "'threshold=0.6' in --strategies is the second of its kind"),
        ("rsd/target-share=0.5/target_share=0.6", "is the second of its kind"),
        ("beam@2/temperature=0", "beam@2 at temperature 0"),
        ("beam@2/temperature=0", "hint: Add /temperature=0.7."),
        ("rsd/target-share=0.2/threshold=0.5", "/target-share=0.2 finds its own threshold"),
        (
            "rsd/target-share=0.2/threshold=0.5",
            "hint: Leave out /threshold and /weighting, or /target-share.",
        ),
        ("rsd/share-per=problem", "/share-per=problem means nothing without a /target-share"),
        ("rsd/beta=3", "/beta=3 means nothing with rsd"),
        ("majority@4/aggregate=min", "/aggregate=min means nothing with majority@4"),
        ("draft/speculative=on", "/speculative=on needs a draft and a target"),
        ("rsd/weighting=logistic:x=1", "/weighting=logistic has no parameter 'x'"),
        ("target/threshold=0.5", "/threshold=0.5 means nothing with target"),
        ("draft/target-share=0.2", "/target-share=0.2 means nothing with draft"),
        ("beam@4/weighting=clip", "/weighting=clip means nothing with beam@4"),
        ("first-k-by-target@2/threshold=0.1", "hint: Leave it out; it is for rsd,"),
        ("rsd/weighting=constant:p=0.5/threshold=0.3", "means nothing with /weighting=constant:p=0.5"),
        ("rsd/weighting=binary:delta=0.5/threshold=0.3", "means nothing with /weighting=binary:delta=0.5"),
    ],
)
def test_strategies_that_make_no_sense_are_refused(strategies, words, rsd, rows):
    said = evaluate(rsd, rows, strategies=strategies).refused(2, words)
    assert "--strategy " not in said


@pytest.mark.parametrize("setting", ["threshold=0.2", "weighting=clip", "target-share=0.3"])
def test_settings_that_are_of_effect_stay(setting):
    (found,) = contenders(f"glimpse:target/{setting}")
    assert found.name == f"glimpse:target/{setting}"
    assert contenders("rsd/weighting=logistic:alpha=3/threshold=0.2")


def test_a_weighting_may_have_several_parameters():
    found = contenders(
        "rsd/weighting=logistic:alpha=10,delta=0.5/speculative=on, draft,best-of-n@4/aggregate=min"
    )
    assert [each.name for each in found] == [
        "rsd/weighting=logistic:alpha=10,delta=0.5/speculative=on", "draft", "best-of-n@4/aggregate=min",
    ]  # fmt: skip
    assert found[0].method.wishes.weighting == "logistic:alpha=10,delta=0.5"


def test_the_compute_of_other_sizes_is_called_a_projection(rsd, rows):
    done = evaluate(rsd, rows, "--project-params", "7e9,72e9,7e9", strategies="rsd,target")
    assert done.code == 0
    assert "rojection" in done.out
    assert results(rsd)["results"]["gsm8k"]["rsd"]["projection"]["flops"]["total"] > 0


def test_a_task_of_ones_own(rsd, rows):
    (rsd.home / "mine.jsonl").write_text('{"q": "What is 1 + 2?", "a": "3"}\n')
    (rsd.home / "mine.yaml").write_text(
        "name: mine\nfile: mine.jsonl\nfields: {question: q, answer: a}\nanswer_type: numeric\n"
    )
    done = rsd("eval", "mine.yaml", "--strategies", "draft", *COMMON)
    assert done.code == 0, done.err
    assert "mine" in (rsd.home / "out" / "results.md").read_text()


def test_two_tasks_of_the_same_name_are_refused_before_models_are_looked_for(rsd):
    for name in ("a", "b"):
        (rsd.home / f"{name}.jsonl").write_text('{"question": "What is 1 + 2?", "answer": "3"}\n')
        (rsd.home / f"{name}.yaml").write_text(f"name: mine\nfile: {name}.jsonl\nanswer_type: numeric\n")
    command = ("eval", "a.yaml", "b.yaml", "--trio", "none", "-o", "out")
    rsd(*command).refused(2, "a.yaml and b.yaml are both called 'mine'.", "hint: ")
    assert not (rsd.home / "out").exists()


def cache(rsd, rows, commit):
    """What `datasets` leaves in its cache when it has loaded GSM8K from the hub."""
    from datasets.packaged_modules.json.json import Json

    made = Json(
        cache_dir=str(rsd.home / "made"), dataset_name="gsm8k", config_name="main", data_files={"test": [str(rows)]}
    )  # fmt: skip
    made.download_and_prepare()
    place = rsd.home / "hf_home" / "datasets" / "openai___gsm8k" / "main" / "0.0.0" / commit
    place.parent.mkdir(parents=True)
    Path(made.cache_dir).rename(place)


@pytest.mark.parametrize(("flag", "variable"), [(["--offline"], "0"), ([], "1")])
def test_offline_takes_the_rows_that_the_cache_holds(flag, variable, rsd, rows):
    command = ("eval", "gsm8k", "--strategies", "draft", *COMMON, "--limit", "3", *flag)
    env = {"HF_HUB_OFFLINE": variable}
    rsd(*command, env=env).refused(3, "openai/gsm8k is not in the cache", "--data FILE")
    cache(rsd, rows, "ab" * 20)
    rsd(*command, env=env).refused(3, "at abababab", f"not at {PINNED}")
    (rsd.home / "hf_home" / "datasets" / "openai___gsm8k").rename(rsd.home / "old")
    cache(rsd, rows, PINNED)
    done = rsd(*command, env=env)
    assert done.code == 0, done.err
    assert "cached" not in done.err
    origin = results(rsd)["config"]["data"]["gsm8k"]
    assert (origin["revision"], origin["pinned"]) == (PINNED, True)
    asked = {line["doc_id"]: line["doc"]["question"] for line in samples(rsd, "draft")}
    assert asked == {i: f"What is {i} + {i}?" for i in range(3)}


def test_offline_the_cache_names_the_commit_of_a_task_that_is_not_pinned(rsd, rows):
    cache(rsd, rows, "ab" * 20)
    folder = rsd.home / "hf_home" / "datasets"
    (folder / "openai___gsm8k").rename(folder / "MARIO-Math-Reasoning___gaokao2023-math-en")
    place = folder / "MARIO-Math-Reasoning___gaokao2023-math-en"
    (place / "main").rename(place / "default")
    for file in place.rglob("*.arrow"):
        file.rename(file.with_name("gaokao2023-math-en-train.arrow"))
    for file in place.rglob("dataset_info.json"):
        told = file.read_text().replace('"main"', '"default"').replace('"test"', '"train"')
        file.write_text(told.replace('"gsm8k"', '"gaokao2023-math-en"'))
    done = rsd("eval", "gaokao2023en", "--strategies", "draft", *COMMON, "--limit", "2", "--offline")
    assert done.code == 0, done.err
    found = json.loads(next((rsd.home / "out").glob("results_*.json")).read_text())
    assert found["config"]["data"]["gaokao2023en"]["revision"] == "ab" * 20
    (found,) = place.rglob("ab" * 20)
    found.rename(found.with_name("cd" * 20))
    again = rsd("eval", "gaokao2023en", "--strategies", "draft", *COMMON, "--limit", "3", "--offline")
    again.refused(3, "at cdcdcdcd", "not at " + "ab" * 20)


def test_a_truncated_answer_is_shown_beside_the_accuracy(rsd, rows):
    done = evaluate(rsd, rows, "--max-tokens", "3", strategies="draft")
    assert done.code == 0
    assert results(rsd)["results"]["gsm8k"]["draft"]["outcomes"]["truncated"] == 6
    assert "6 cut short" in done.out
