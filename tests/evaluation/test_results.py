"""An evaluation survives its files; its figures are those of the accounts; the table says them."""

import json
import re
from dataclasses import replace

import pytest

from rsd_cli.errors import OutputError, UsageError
from rsd_cli.evaluation.accounts import StrategyRun
from rsd_cli.evaluation.results import read_evaluation, results_of, samples_name, write_results
from rsd_cli.evaluation.runs import Evaluation, TaskRun, relative_compute
from rsd_cli.evaluation.table import columns, markdown
from rsd_cli.records import Role, Usage
from tests.evaluation.made import SIZES, circumstances, evaluation_of, runs_of

PROJECT: dict[Role, float] = {"draft": 7e9, "target": 72e9, "prm": 7e9}
MADE = evaluation_of(20, limit=20)


def saved(folder, evaluation):
    for run in evaluation.tasks:
        for each in run.strategies:
            lines = "".join(sample.to_json() + "\n" for sample in each.samples)
            (folder / samples_name(run.task, each.name)).write_text(lines, "utf-8")
    return write_results(folder, evaluation)


def timed(run):
    return replace(run, samples=tuple(replace(sample, seconds=2.5) for sample in run.samples))


@pytest.mark.parametrize(
    "evaluation",
    [
        MADE,
        replace(MADE, project=PROJECT),
        Evaluation(
            (TaskRun("gsm8k", runs_of(3, ("rsd",))), TaskRun("my/task", runs_of(2, ("target", "draft")))),
            circumstances(config={"a": [1, {"b": None}]}),
        ),
        Evaluation((TaskRun("x", (timed(runs_of(2, ("rsd",))[0]),)),), circumstances()),
    ],
)
def test_an_evaluation_survives_its_files(evaluation, tmp_path):
    path = saved(tmp_path, evaluation)
    assert path.name == "results_2026-05-01T11-30-00+00-00.json"
    assert read_evaluation(path) == evaluation
    assert read_evaluation(tmp_path) == evaluation


def test_the_order_in_which_answers_were_done_changes_nothing(tmp_path):
    path = saved(tmp_path, MADE)
    for file in tmp_path.glob("samples_*.jsonl"):
        lines = file.read_text("utf-8").splitlines(keepends=True)
        file.write_text("".join(reversed(lines)), "utf-8")
    assert read_evaluation(path) == MADE


def test_results_hold_what_the_conventions_ask_for():
    data = json.loads(json.dumps(results_of(MADE), allow_nan=False))
    assert {"results", "n", "versions", "config", "seeds", "hashes", "times", "hardware"} <= set(data)
    assert {"models", "verdicts"} <= set(data)
    assert data["comparable"] is False
    account = MADE.tasks[0].accounts[0]
    found = data["results"]["gsm8k"]["rsd"]
    assert (found["accuracy"], found["stderr"]) == (account.accuracy, account.stderr)
    assert found["flops"]["total"] == pytest.approx(account.cost.total_flops)
    assert found["difference_to_first"] is None
    assert data["results"]["gsm8k"]["target"]["difference_to_first"]["n"] == 20
    assert data["results"]["gsm8k"]["target"]["compute_vs_target"] == 1
    assert "projection" not in found
    assert data["results"]["gsm8k"]["majority@8"]["budgets"][0]["difference_to_first"]["n"] == 20
    assert len(set(data["hashes"]["gsm8k"].values())) == 1


def test_a_projection_stands_beside_what_was_measured():
    found = results_of(replace(MADE, project=PROJECT))["results"]["gsm8k"]
    tokens = found["rsd"]["tokens"]
    expected = sum(2 * PROJECT[role] * (used["fed"] + used["generated"]) for role, used in tokens.items())
    assert found["rsd"]["projection"]["flops"]["total"] == pytest.approx(expected)
    assert found["rsd"]["flops"] == results_of(MADE)["results"]["gsm8k"]["rsd"]["flops"]
    projected = found["target"]["projection"]["flops"]["total"] / found["target"]["flops"]["total"]
    assert projected == pytest.approx(72e9 / SIZES["target"])


def test_compute_is_relative_to_the_target_a_question():
    rsd, target = runs_of(10, ("rsd", "target"))
    whole = TaskRun("x", (rsd, target)).accounts
    half = TaskRun("x", (rsd, StrategyRun("target", target.samples[:5]))).accounts
    assert relative_compute(whole, {})["target"] == relative_compute(half, {})["target"] == 1
    assert relative_compute(half, {})["rsd"] == pytest.approx(
        whole[0].cost.total_flops / 10 / (half[1].cost.total_flops / 5)
    )
    assert relative_compute(whole[:1], {}) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("samples"),
        lambda data: data.update(times=3),
        lambda data: data.update(limit="all"),
        lambda data: data["samples"]["gsm8k"].update(rsd="../../etc/passwd"),
        lambda data: data["n"].pop("gsm8k"),
    ],
)
def test_a_file_that_holds_no_results_is_refused(change, tmp_path):
    path = saved(tmp_path, MADE)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(OutputError, match="holds no results"):
        read_evaluation(path)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no results_\*\.json"):
        read_evaluation(tmp_path)
    with pytest.raises(UsageError, match="is not there"):
        read_evaluation(tmp_path / "results_1.json")
    path = saved(tmp_path, MADE)
    (tmp_path / samples_name("gsm8k", "draft")).unlink()
    with pytest.raises(OutputError, match="samples_gsm8k_draft"):
        read_evaluation(path)


def test_names_of_sample_files_tell_strategies_apart():
    names = ["rsd", "rsd:threshold=0.7", "rsd threshold=0.7", "rsd/threshold=0.7", "majority@8", "..", "ü"]
    files = [samples_name("gsm8k", name) for name in names]
    assert len(set(files)) == len(names)
    assert all("/" not in name and ":" not in name and " " not in name for name in files)
    assert files[0] == "samples_gsm8k_rsd.jsonl"


def test_the_table_has_a_row_for_every_strategy():
    shown = {column.title: column.cells for column in columns(MADE)}
    assert shown["Strategy"] == tuple(account.strategy for account in MADE.tasks[0].accounts)
    assert shown["compute"][3] == "1.00x"
    assert shown["Δ to first [95%]"][0] == ""
    assert "projected" not in shown
    assert "projected" in {column.title for column in columns(replace(MADE, project=PROJECT))}


def test_tokens_are_told_by_role_and_of_all_models():
    rsd = MADE.tasks[0].accounts[0]
    shown = {column.title: column.cells for column in columns(MADE)}
    written = sum(used.generated for used in rsd.cost.tokens.values())
    assert shown["tokens/question"][0] == f"{written / 20:,.0f}"
    alone = dict(zip(shown["Strategy"], shown["draft alone"], strict=True))
    assert (alone["draft"], alone["target"], alone["rsd"]) == (
        "100%",
        "0%",
        f"{rsd.authorship.draft_alone:.0%}",
    )
    own = rsd.cost.tokens["draft"]
    line = (
        f"gsm8k rsd, draft: {own.generated:,} tokens written, {own.discarded:,} discarded, {own.fed:,} read, "
        f"{own.reused:,} reused; {2 * SIZES['draft'] * own.generated / 1e12:,.2f} TFLOPs writing, "
    )
    assert line in markdown(MADE)


def test_markdown_says_what_limits_it():
    text = markdown(replace(MADE, project=PROJECT))
    assert "Not comparable with the whole of gsm8k: only the first 20 questions." in text
    assert "Projection, not measured" in text
    assert "target 72B" in text
    assert re.search(r"budget= 4: accuracy=.*TFLOPs a question, [+-]\d+\.\d \[.*\] to first, p ", text)
    assert "RSD takes" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 7
    assert len({line.count("|") for line in rows}) == 1


def test_a_projection_says_that_a_prm_without_tokens_costs_nothing():
    """A head on the draft."""
    said = "No PRM read a token here"
    assert said not in markdown(replace(MADE, project=PROJECT))
    run = runs_of(5, ("rsd",))[0]
    headed = replace(run, samples=tuple(map(without_prm, run.samples)))
    free = Evaluation((TaskRun("gsm8k", (headed,)),), circumstances())
    assert said not in markdown(free)
    assert said in markdown(replace(free, project=PROJECT))
    alone = Evaluation((TaskRun("gsm8k", runs_of(5, ("draft",))),), circumstances(), PROJECT)
    assert said not in markdown(alone), "nobody judged"


def without_prm(sample):
    record = sample.records[0]
    free = replace(record, usage={**record.usage, "prm": Usage()})
    return replace(sample, branches=(replace(sample.branches[0], record=free),))


def test_markdown_says_each_note_apart_and_each_verdict_with_its_task():
    runs = runs_of(5, ("rsd", "target"))
    text = markdown(Evaluation((TaskRun("gsm8k", runs), TaskRun("math500", runs)), circumstances(limit=5)))
    paragraphs = text.split("\n\n")
    for task in ("gsm8k", "math500"):
        assert f"Not comparable with the whole of {task}: only the first 5 questions." in paragraphs
        assert any(each.startswith(f"**{task}** RSD takes") for each in paragraphs)
    assert not any("Compute: " in each and "Seconds" in each for each in paragraphs)


def test_a_part_of_a_known_task_is_called_a_part():
    made = replace(MADE, circumstances=circumstances(rows={"gsm8k": 1319}))
    assert "only 20 of 1,319 questions" in markdown(made)
    assert results_of(made)["comparable"] is False
    whole = replace(MADE, circumstances=circumstances(rows={"gsm8k": 20}))
    assert "Not comparable" not in markdown(whole)
    assert results_of(whole)["comparable"] is True


def test_a_task_with_fewer_questions_than_its_limit_was_asked_whole():
    assert results_of(replace(MADE, circumstances=circumstances(limit=20)))["comparable"] is False
    whole = replace(MADE, circumstances=circumstances(limit=21))
    assert "Not comparable" not in markdown(whole)
    assert results_of(whole)["comparable"] is True


def test_results_of_a_part_read_no_more_than_that_part(tmp_path):
    """A folder in which more questions were answered before."""
    saved(tmp_path, MADE)
    part = Evaluation(
        (TaskRun("gsm8k", tuple(first_of(each, 8) for each in MADE.tasks[0].strategies)),), circumstances()
    )
    path = write_results(tmp_path, part)
    assert read_evaluation(path) == part


def first_of(run, n):
    return replace(run, samples=run.samples[:n])


def test_without_the_target_compute_is_absolute():
    evaluation = evaluation_of(5, ("rsd", "draft"))
    shown = {column.title: column.cells for column in columns(evaluation)}
    flops = evaluation.tasks[0].accounts[0].cost.total_flops / 5
    assert shown["compute"][0] == f"{flops / 1e12:.2f} T"


def test_the_verdict_predicts_the_made_times():
    verdict = MADE.tasks[0].verdict()
    assert verdict is not None
    assert verdict.time is not None
    assert verdict.time.measured is not None
    assert verdict.time.predicted == pytest.approx(verdict.time.measured, rel=0.01)
    assert MADE.tasks[0].verdict("nobody") is None
    alone = TaskRun("x", runs_of(5, ("rsd",))).verdict()
    assert alone is not None
    assert alone.compute.measured is None


def failing(run, doc_ids):
    """The same run with some questions that could not be answered."""

    def failed(sample):
        return replace(sample, branches=(), right=False, extracted=None, outcome="error", error="too long")

    return replace(run, samples=tuple(failed(s) if s.doc_id in doc_ids else s for s in run.samples))


def test_questions_without_an_answer_cost_nothing_and_are_not_compared():
    rsd, target = runs_of(20, ("rsd", "target"))
    unanswered = {0, 5, 10, 15}
    left = {
        run.name: replace(run, samples=tuple(s for s in run.samples if s.doc_id not in unanswered))
        for run in (rsd, target)
    }
    whole = TaskRun("x", (failing(rsd, unanswered), target))
    assert whole.verdict() == TaskRun("x", (left["rsd"], left["target"])).verdict()
    failing_there = TaskRun("x", (rsd, failing(target, unanswered)))
    assert failing_there.verdict() == whole.verdict()
    spent = sum(record.flops.total for sample in left["rsd"].samples for record in sample.records)
    alone = sum(record.flops.total for sample in target.samples for record in sample.records)
    assert relative_compute(whole.accounts, {})["rsd"] == pytest.approx(spent / 16 / (alone / 20))


def test_a_strategy_without_any_answer_has_no_cost():
    rsd, target = runs_of(5, ("rsd", "target"))
    evaluation = Evaluation((TaskRun("x", (failing(rsd, range(5)), target)),), circumstances())
    shown = {column.title: column.cells for column in columns(evaluation)}
    assert (shown["compute"][0], shown["s/question"][0], shown["remarks"][0]) == ("", "", "5 error")
    assert evaluation.tasks[0].verdict() is None
    failing_alone = Evaluation((TaskRun("x", (failing(target, range(5)),)),), circumstances())
    assert columns(failing_alone)[0].cells == ("x",)
