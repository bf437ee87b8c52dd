"""Accounts against an independent count from the traces, and figures worked out by hand."""

import random
from dataclasses import replace

import pytest

from rsd_cli.decoding.runner import Runner, finished
from rsd_cli.errors import UsageError
from rsd_cli.evaluation.accounts import StrategyRun, accounts_of, authorship
from rsd_cli.evaluation.costs import compute, cost_of, parse_parameters, projected
from rsd_cli.evaluation.samples import Branch, Outcome, Sample
from rsd_cli.evaluation.table import odd_ends
from rsd_cli.records import Candidate, Rejected, Role, Step, Usage
from tests.decoding import test_runner as real
from tests.decoding.tiny_trio import TinyTrio
from tests.evaluation.made import PROMPT, SIZES, STRATEGIES, Trace, record_of, runs_of

RUNS = runs_of(40)
ACCOUNTS = {account.strategy: account for account in accounts_of("gsm8k", RUNS)}


def counted_from_steps(record, judged):
    """FLOPs from the steps alone: who wrote and read what under the paper's algorithm."""
    drafted = sum(step.tokens for step in record.steps if step.author == "draft")
    rejected = sum(step.rejected.tokens for step in record.steps if step.rejected)
    by_target = [i for i, step in enumerate(record.steps) if step.author == "target"]
    written = sum(record.steps[i].tokens for i in by_target)
    last = by_target[-1] if by_target else 0
    read_by_target = sum(step.tokens for step in record.steps[:last] if step.author == "draft")
    flops: dict[Role, float] = {"draft": 0.0, "target": 0.0, "prm": 0.0}
    if drafted or rejected:
        # a step of the target at the very end is read by nobody
        read = sum(record.steps[i].tokens for i in by_target if i + 1 < len(record.steps))
        flops["draft"] = 2 * SIZES["draft"] * (PROMPT + drafted + rejected + read)
        if judged:
            flops["prm"] = 2 * SIZES["prm"] * (PROMPT + drafted + rejected + read)
    if by_target:
        flops["target"] = 2 * SIZES["target"] * (PROMPT + read_by_target + written)
    return flops


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_compute_is_that_of_an_independent_count(run):
    judged = STRATEGIES[run.name]["policy"] in ("rsd", "judged")
    expected: dict[Role, float] = {"draft": 0.0, "target": 0.0, "prm": 0.0}
    for sample in run.samples:
        for record in sample.records:
            for role, flops in counted_from_steps(record, judged).items():
                expected[role] += flops
    found = ACCOUNTS[run.name].cost.flops
    for role, flops in expected.items():
        assert found[role].total == pytest.approx(flops, rel=0.01)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_compute_and_tokens_add_up_to_the_records_own(run):
    account = ACCOUNTS[run.name]
    records = [record for sample in run.samples for record in sample.records]
    assert account.cost.total_flops == pytest.approx(sum(record.flops.total for record in records))
    assert account.cost.tokens["draft"].discarded == sum(r.usage["draft"].discarded for r in records)
    assert account.cost.seconds == pytest.approx(sum(r.timings.total_ms for r in records) / 1000)


def test_the_tokens_of_judged_steps_are_counted():
    steps = (
        Step(
            "a",
            "draft",
            0.9,
            30,
            1.0,
            others=(Candidate("b", "draft", 0.2, 7), Candidate("c", "draft", None, 5)),
        ),
        Step("d", "target", None, 40, 1.0, Rejected("e", 0.1, 11)),
        Step("f", "target", None, 50, 1.0, Rejected("g", None, 13)),
    )
    assert cost_of([record_of(Trace(random.Random(0), steps=list(steps), kept=120))]).judged == 30 + 7 + 11
    assert ACCOUNTS["rsd"].cost.judged == sum(
        step.rejected.tokens if step.rejected else step.tokens
        for sample in RUNS[0].samples
        for step in sample.records[0].steps
    )
    assert ACCOUNTS["draft"].cost.judged == 0


def test_steps_without_a_reward_are_counted_and_shown():
    assert ACCOUNTS["rsd"].unrewarded == 0
    assert "reward" not in odd_ends(ACCOUNTS["rsd"])
    sample = RUNS[0].samples[0]
    step = Step("f", "target", None, 50, 1.0, Rejected("g", None, 13))
    record = replace(sample.records[0], steps=(step,) * 3)
    broken = replace(sample, branches=(replace(sample.branches[0], record=record),))
    (account,) = accounts_of("gsm8k", [StrategyRun("rsd", (broken,))])
    assert account.unrewarded == 3
    assert "3 steps without a reward" in odd_ends(account)


def test_reading_is_counted_apart_from_writing():
    found = compute(Usage(prompt=9, generated=7, discarded=1, fed=10, reused=99), 1e9)
    assert (found.reading, found.writing, found.total) == (2e10, 1.4e10, 3.4e10)


def test_accuracy_and_the_difference_to_the_first():
    first, target = ACCOUNTS["rsd"], ACCOUNTS["target"]
    assert first.difference is None
    rights = [sample.right for sample in RUNS[0].samples]
    assert (first.n, first.right, first.accuracy) == (40, sum(rights), sum(rights) / 40)
    assert target.difference is not None
    assert target.difference.mean == pytest.approx(target.accuracy - first.accuracy)
    assert target.difference.n == 40


def test_only_questions_of_both_are_paired():
    rsd, target = runs_of(10, ("rsd", "target"))
    short = StrategyRun("target", target.samples[4:])
    (_, account) = accounts_of("gsm8k", (rsd, short))
    assert account.difference is not None
    assert (account.n, account.difference.n) == (6, 6)
    (_, strange) = accounts_of("gsm8k", (StrategyRun("rsd", rsd.samples[:3]), short))
    assert strange.difference is None


def test_odd_ends_are_counted():
    sample = RUNS[0].samples[0]
    outcomes: list[Outcome] = ["truncated", "empty", "unparsable", "timeout", "timeout", "wrong"]
    odd = tuple(replace(sample, doc_id=i, outcome=ended, right=False) for i, ended in enumerate(outcomes))
    (account,) = accounts_of("gsm8k", (StrategyRun("rsd", (*odd, replace(sample, doc_id=9, branches=()))),))
    expected = {"truncated": 1, "empty": 1, "unparsable": 1, "timeout": 2, "wrong": 1, "right": 0, "error": 0}
    assert account.outcomes == expected | {sample.outcome: expected[sample.outcome] + 1}


def test_cut_short_is_the_answer_that_counts_whatever_its_grade():
    sample = RUNS[0].samples[0]
    (branch,) = sample.branches
    short = replace(branch, record=replace(branch.record, ended_by="max_tokens"))
    other = replace(branch, extracted="another")
    made = (
        replace(sample, doc_id=0, branches=(short,)),
        replace(sample, doc_id=1, branches=(branch,)),
        replace(sample, doc_id=2, branches=drawn("majority@3", short, other, other)),
        replace(sample, doc_id=3, branches=drawn("majority@3", other, short, short)),
        replace(
            sample,
            doc_id=4,
            branches=drawn("best-of-n@2", replace(short, score=0.2), replace(branch, score=0.9)),
        ),
        replace(
            sample,
            doc_id=5,
            branches=drawn("best-of-n@2", replace(branch, score=0.2), replace(short, score=0.9)),
        ),
        replace(sample, doc_id=6, branches=(), outcome="error", error="It was too long."),
    )
    (account,) = accounts_of("gsm8k", (StrategyRun("rsd", made),))
    assert [each.doc_id for each in made if each.is_cut_short] == [0, 3, 5]
    assert account.cut_short == 3


def drawn(strategy, *branches):
    return tuple(replace(each, record=replace(each.record, strategy=strategy)) for each in branches)


@pytest.mark.parametrize("strategy", ["beam@2", "process-best-of-n@2", "best-of-n@2", "rsd-n@2"])
def test_where_candidates_are_picked_nothing_is_accepted(strategy):
    steps = [Step("a", "draft", 0.9, 10, 1.0, others=(Candidate("b", "draft", 0.2, 30),))]
    record = record_of(Trace(random.Random(0), steps=steps, kept=1), strategy=strategy)
    sample = Sample.single(strategy, 0, {}, "1", Branch(record, True, "1", "right"))
    found = authorship([sample])
    assert found.acceptance == (1.0 if strategy == "rsd-n@2" else None)
    assert found.acceptance_by_tokens == (0.25 if strategy == "rsd-n@2" else None)


def made_by_hand(*steps, right=True):
    made = Trace(random.Random(0), steps=list(steps), kept=1)
    branch = Branch(record_of(made), right, "1", "right" if right else "wrong")
    return Sample.single("rsd", 0, {}, "1", branch)


ACCEPTED = Step("a", "draft", 0.9, 10, 1.0)
REWRITTEN = Step("b", "target", None, 30, 1.0, Rejected("x", 0.2, 15))


def test_acceptance_is_of_steps_and_of_tokens():
    found = authorship([made_by_hand(ACCEPTED, ACCEPTED, REWRITTEN), made_by_hand(ACCEPTED, right=False)])
    assert found.acceptance == pytest.approx(3 / 4)
    assert found.acceptance_by_tokens == pytest.approx(30 / 45)
    assert found.target_share == pytest.approx(30 / 60)
    assert (found.draft_alone, found.draft_alone_right) == (0.5, 0.0)


def test_a_step_that_stays_against_the_criterion_was_not_accepted():
    passed = Step("a", "draft", 0.9, 10, 1.0)
    stayed = Step("b", "draft", 0.5, 30, 1.0, others=(Candidate("t", "target", 0.4, 20),))
    record = record_of(Trace(random.Random(0), steps=[passed, stayed], kept=1), strategy="keep-better")
    found = authorship([Sample.single("keep-better", 0, {}, "1", Branch(record, True, "1", "right"))])
    assert found.acceptance == 0.5
    assert found.acceptance_by_tokens == 0.25


@pytest.mark.parametrize(("strategy", "acceptance"), [("glimpse", 1 / 3), ("glimpse:target", None)])
def test_where_the_target_looks_nothing_of_the_draft_is_rejected(strategy, acceptance):
    lost = Rejected("x", 0.2, 1) if strategy == "glimpse" else None
    steps = [Step("a", "draft", 0.9, 10, 1.0), *(Step("b", "target", None, 30, 1.0, lost) for _ in range(2))]
    record = record_of(Trace(random.Random(0), steps=steps, kept=1), strategy=strategy)
    found = authorship([Sample.single(strategy, 0, {}, "1", Branch(record, True, "1", "right"))])
    assert found.acceptance == acceptance
    assert (found.acceptance_by_tokens is None) == (acceptance is None)
    assert found.target_share == 6 / 7


def test_what_nobody_judged_has_no_acceptance():
    alone = authorship([made_by_hand(Step("a", "target", None, 10, 1.0))])
    assert alone.acceptance is alone.acceptance_by_tokens is None
    assert (alone.target_share, alone.draft_alone) == (1.0, 0.0)
    assert ACCOUNTS["draft"].authorship.acceptance is None
    assert ACCOUNTS["best-of-n@8"].authorship.acceptance is None
    assert ACCOUNTS["best-of-n@8"].authorship.draft_alone == 1.0


def test_every_budget_is_of_the_same_samples():
    run = next(run for run in RUNS if run.name == "best-of-n@8")
    budgets = {(budget.choice, budget.n): budget for budget in ACCOUNTS[run.name].budgets}
    assert list(budgets) == [(how, n) for how in ("majority", "best", "weighted") for n in (1, 2, 4, 8)]
    one = budgets["best", 1]
    assert one.right == sum(sample.branches[0].right for sample in run.samples)
    first_three = cost_of(record for sample in run.samples for record in sample.records[:4])
    assert budgets["weighted", 4].cost == first_three
    assert budgets["best", 8].right == ACCOUNTS[run.name].right
    assert budgets["majority", 4].cost.total_flops < first_three.total_flops  # a majority asks no PRM
    assert "prm" not in budgets["majority", 8].cost.times
    assert [budget.choice for budget in ACCOUNTS["majority@8"].budgets] == ["majority"] * 4
    assert ACCOUNTS["rsd"].budgets == ()


def test_budgets_differ_from_the_first_strategy_in_pairs():
    best = ACCOUNTS["best-of-n@8"]
    budgets = {(budget.choice, budget.n): budget for budget in best.budgets}
    assert budgets["best", 8].difference == best.difference
    one = budgets["best", 1].difference
    assert one is not None
    assert one.mean == pytest.approx(budgets["best", 1].accuracy - ACCOUNTS["rsd"].accuracy)
    first, *_ = accounts_of("x", runs_of(5, ("best-of-n@8", "rsd")))
    assert {budget.difference for budget in first.budgets} == {None}


def test_a_projection_takes_the_measured_tokens():
    tokens = ACCOUNTS["rsd"].cost.tokens
    other = projected(tokens, {"draft": 7e9, "target": 72e9, "prm": 7e9})
    assert other["target"].writing == 2 * 72e9 * tokens["target"].generated
    assert other["prm"].reading == 2 * 7e9 * tokens["prm"].fed
    same = projected(tokens, {role: float(size) for role, size in SIZES.items()})
    assert same == ACCOUNTS["rsd"].cost.flops


@pytest.mark.parametrize("text", ["7e9,72e9,7e9", "7B, 72b,7000M", "7000000000,7.2e10,7e9"])
def test_sizes_are_read(text):
    assert parse_parameters(text) == {"draft": 7e9, "target": 72e9, "prm": 7e9}


@pytest.mark.parametrize(
    "text", ["", "7e9", "7e9,72e9", "7e9,72e9,7e9,1", "7e9,large,7e9", "0,1,1", "1,nan,1", "b,b,b"]
)
def test_what_is_no_list_of_sizes_is_refused(text):
    with pytest.raises(UsageError):
        parse_parameters(text)


def test_what_real_engines_wrote_is_what_the_trace_says(tiny_model):
    """Two tiny models and a PRM on llama.cpp: FLOPs of writing from the steps, of judging nothing but reading."""
    cast: dict[Role, tuple[str, int]] = {"draft": ("llama", 1), "target": ("other", 2), "prm": ("llama", 3)}
    models = {role: tiny_model(kind, seed=seed, favour=real.ENDLESS) for role, (kind, seed) in cast.items()}
    trio = TinyTrio(models, seats=2)
    records = [
        real.record_of(trio, done)
        for one in Runner(trio, real.SETTINGS, 2).run(real.PROBLEMS[:4])
        if (done := finished(one))
    ]
    trio.close()
    cost = cost_of(records)
    steps = [step for record in records for step in record.steps]
    drafted = sum(step.tokens for step in steps if step.author == "draft")
    lost = sum(step.rejected.tokens for step in steps if step.rejected)
    by_target = sum(step.tokens for step in steps if step.author == "target")
    assert lost
    assert by_target
    sizes: dict[Role, int] = {role: model.parameters for role, model in models.items()}
    assert cost.flops["draft"].writing == 2 * sizes["draft"] * (drafted + lost)
    assert cost.flops["target"].writing == 2 * sizes["target"] * by_target
    assert cost.flops["prm"].writing == 0
    assert cost.flops["prm"].reading > 2 * sizes["prm"] * (drafted + lost) * 0.9
    assert cost.total_flops == pytest.approx(sum(record.flops.total for record in records))
