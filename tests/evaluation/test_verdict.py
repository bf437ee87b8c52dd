"""The model of costs: by hand, at its own acceptance, and where it breaks even."""

from dataclasses import replace

import pytest

from rsd_cli.engine.pace import Pace
from rsd_cli.evaluation.accounts import StrategyRun, authorship
from rsd_cli.evaluation.costs import cost_of
from rsd_cli.evaluation.runs import TaskRun
from rsd_cli.evaluation.samples import Branch, Sample
from rsd_cli.evaluation.speed import Speed
from rsd_cli.evaluation.verdict import (
    Aspect,
    Price,
    Prices,
    Tariff,
    bill,
    break_even_acceptance,
    break_even_size,
    flops_tariff,
    make_verdict,
    measured_tariff,
    predicted_ratio,
    spent_tariff,
)
from rsd_cli.evaluation.workload import Alone, Rota, Tokens, Work, Workload, alone_of
from rsd_cli.records import Candidate, Guesses, Rejected, Role, RoleTime, Step, Usage
from tests.evaluation.made import READ_MS, SIZES, WRITE_MS, runs_of, sample_of

RSD, TARGET = runs_of(40, ("rsd", "target"))
PRICES: Prices = {role: Price(READ_MS[role] / 1000, WRITE_MS[role] / 1000) for role in SIZES}
CHEAP: Prices = {"draft": Price(0.1, 0.3), "target": Price(10.0, 30.0), "prm": Price(0.1, 0.3)}
BY_HAND = Work(
    {"draft": Tokens(130, 100), "target": Tokens(160, 30), "prm": Tokens(230, 0)},
    alone=Tokens(100, 110),
    prm_prompts=100,
    rejected=20,
    joined=1.0,
    steps=10,
)


def tariff(prices: Prices, work: Work = BY_HAND) -> Tariff:
    """The target's tokens cost alone what they cost in RSD."""
    return Tariff(prices, prices["target"].bill(work.alone))


def workload(run=RSD) -> Workload:
    load = Workload()
    for sample in run.samples:
        for record in sample.records:
            load.add(record)
    return load


def work_of(alone: Alone | None = None) -> Work:
    work = workload().work(alone)
    assert work is not None
    return work


def test_the_ratio_by_hand():
    prices: Prices = {"draft": Price(1, 3), "target": Price(3, 9), "prm": Price(2, 6)}
    rsd = (130 + 300) + (480 + 270) + 460
    assert predicted_ratio(BY_HAND, tariff(prices)) == pytest.approx(rsd / (300 + 990))
    assert BY_HAND.acceptance == pytest.approx(0.8)


def test_at_its_own_acceptance_the_work_is_as_counted():
    for work in (BY_HAND, work_of()):
        for role, tokens in work.at(work.acceptance).items():
            assert tokens.read == pytest.approx(work.rsd[role].read)
            assert tokens.written == pytest.approx(work.rsd[role].written)


def test_at_full_acceptance_the_target_does_nothing_and_at_none_it_writes_all():
    everything, nothing = BY_HAND.at(1.0), BY_HAND.at(0.0)
    assert everything["target"] == Tokens(0.0, 0.0)
    assert everything["draft"].written == pytest.approx(110)  # the kept tokens
    assert nothing["target"].written == pytest.approx(110)
    assert nothing["draft"].written == pytest.approx(110 / 1.5)  # 1.5 tokens of the target for a rejected one


def test_the_target_joins_more_answers_the_more_is_rejected():
    work = work_of()
    reads = [work.at(i / 20)["target"].read for i in range(21)]
    assert 0 < work.joined < 1
    assert reads[20] == 0
    assert reads[19] < work.rsd["target"].read


def test_the_prediction_is_the_simulated_time():
    """The made records take exactly what their tokens cost, so prediction and measurement must agree."""
    rsd, alone = (
        cost_of(record for sample in run.samples for record in sample.records) for run in (RSD, TARGET)
    )
    work = work_of(alone_of(record for sample in TARGET.samples for record in sample.records))
    assert predicted_ratio(work, tariff(PRICES, work)) == pytest.approx(rsd.seconds / alone.seconds, rel=1e-6)
    assert predicted_ratio(work, flops_tariff(SIZES, work)) == pytest.approx(
        rsd.total_flops / alone.total_flops, rel=1e-6
    )


def test_how_many_rows_decode_together_stands_in_the_records_or_is_said():
    """Records of answers that do not depend on it do not have it."""
    load = Workload(rows=16)
    for sample in RSD.samples:
        for record in sample.records:
            load.add(record)
    work = load.work()
    assert work is not None
    assert (work.rota.rows, work_of().rota.rows) == (16, 1)


def test_without_the_targets_own_answers_it_writes_the_same_texts():
    work = work_of()
    kept = sum(step.tokens for sample in RSD.samples for step in sample.records[0].steps)
    assert work.alone.written == pytest.approx(kept)
    assert work.alone.read == pytest.approx(60 * 40)


def test_the_break_even_acceptance_is_where_the_bills_meet():
    work = work_of()
    cheap: Prices = {"draft": Price(0.003, 0.01), "target": Price(0.03, 0.09), "prm": Price(0.003, 0.01)}
    found = break_even_acceptance(work, tariff(cheap, work))
    alone = cheap["target"].bill(work.alone)
    assert found is not None
    assert 0 < found < 1
    assert bill(work.at(found), cheap) <= alone < bill(work.at(found - 0.002), cheap)
    assert all(bill(work.at(a / 100), cheap) <= alone for a in range(int(found * 100) + 1, 101))


def test_where_draft_and_prm_cost_more_than_the_target_no_acceptance_would_do():
    dear: Prices = {"draft": Price(0.1, 0.3), "target": Price(0.1, 0.3), "prm": Price(0.1, 0.3)}
    assert break_even_acceptance(BY_HAND, tariff(dear)) is None
    said = make_verdict(BY_HAND, {"draft": 1, "target": 1, "prm": 1}, tariff(dear)).sentences[0]
    assert "No acceptance would make it pay" in said


def test_where_draft_and_prm_cost_nothing_it_pays_early():
    found = break_even_acceptance(BY_HAND, tariff(CHEAP))
    assert found is not None
    assert found < BY_HAND.acceptance


def test_the_break_even_size_is_where_the_bills_meet():
    work = work_of()
    ratio = break_even_size(work, flops_tariff(SIZES, work), 3.0)
    assert ratio is not None
    sizes: dict[Role, float] = {**SIZES, "target": SIZES["draft"] * ratio}
    assert predicted_ratio(work, flops_tariff(sizes, work)) == pytest.approx(1.0)
    useless = Work(BY_HAND.rsd, Tokens(100, 10), 100, 20, 1.0, 10)
    assert break_even_size(useless, flops_tariff(SIZES, useless), 3.0) is None


def test_work_that_can_not_be_compared_is_none():
    assert Workload().work() is None
    assert workload(TARGET).work() is None


def test_a_target_that_writes_without_a_rejection_has_no_break_even_acceptance():
    opened = Work(BY_HAND.rsd, BY_HAND.alone, 100, rejected=0, joined=1.0, steps=10)
    assert break_even_acceptance(opened, tariff(CHEAP)) is None
    said = make_verdict(opened, SIZES, None).sentences[0]
    assert "does not pay" in said
    assert "No acceptance" not in said


def test_what_the_draft_proposed_to_the_target_is_neither_accepted_nor_rejected():
    steps = (
        Step("a", "draft", 0.9, 60, 1.0),
        Step("b", "target", None, 50, 1.0, Rejected("x", 0.1, 40), guesses=Guesses(55, 40, 15, 3)),
    )
    usage: dict[Role, Usage] = {
        "draft": Usage(prompt=60, generated=155, fed=70),
        "target": Usage(prompt=60, generated=50, fed=135),
        "prm": Usage(prompt=60, fed=160),
    }
    record = replace(RSD.samples[0].records[0], steps=steps, usage=usage)
    record = replace(record, flops=replace(record.flops, target_only=2.0 * SIZES["target"] * (60 + 110)))
    load = Workload()
    load.add(record)
    work = load.work()
    assert work is not None
    known = authorship([Sample.single("rsd", 0, {}, "1", Branch(record, True, "1", "right"))])
    assert work.acceptance == known.acceptance_by_tokens == pytest.approx(0.6)
    assert break_even_acceptance(work, tariff(PRICES, work)) is None
    said = make_verdict(work, SIZES, tariff(PRICES, work)).sentences[0]
    assert "it does not pay at 60% acceptance of tokens." in said
    assert "would from" not in said
    assert "No acceptance" not in said


def test_answers_that_the_draft_only_proposed_for_have_an_acceptance():
    opened = replace(BY_HAND, rejected=0, proposed=100)
    assert opened.acceptance == 1
    assert not opened.scales


def test_prices_come_from_the_time_that_answers_took():
    tokens: dict[Role, Usage] = {
        "target": Usage(fed=100, generated=50),
        "prm": Usage(fed=200),
        "draft": Usage(),
    }
    times: dict[Role, RoleTime] = {"target": RoleTime(1000.0, 2500.0), "prm": RoleTime(400.0, 0.0)}
    prices: Prices = {"target": Price(0.01, 0.05), "prm": Price(0.002, 0.0)}
    assert spent_tariff(tokens, times, {}, BY_HAND) == Tariff(prices, 100 * 0.01 + 110 * 0.05)


def pace_of(*sizes, seconds=0.04, each=0.002):
    """A pace at which a decode takes some time, and somewhat more with each row."""
    pace = Pace()
    for n in sizes:
        pace.add(n, 10 * (seconds + each * n), decodes=10)
    return pace


def rota_of(rows, *texts):
    rota = Rota(rows)
    for tokens in texts:
        rota.add(tokens)
    return rota


SPENT: dict[Role, Usage] = {"target": Usage(fed=100, generated=50)}
TOOK: dict[Role, RoleTime] = {"target": RoleTime(1000.0, 2500.0)}


def test_alone_the_target_shares_decodes_as_rsd_took_them():
    """Two rows write 30 and 80 tokens: 30 decodes of both, 50 of the longer one."""
    work = replace(BY_HAND, rota=rota_of(2, 30, 80))
    found = spent_tariff(SPENT, TOOK, {"target": pace_of(1, 2, 3)}, work)
    assert found is not None
    assert found.alone == pytest.approx(100 * 0.01 + 30 * 0.044 + 50 * 0.042)
    assert found.prices["target"] == Price(0.01, 0.05)


def test_decodes_larger_than_the_targets_grow_as_the_drafts():
    work = replace(BY_HAND, rota=rota_of(8, *[10] * 8))
    paces: dict[Role, Pace] = {
        "target": pace_of(1, 2),
        "draft": pace_of(1, 2, 4, 8, seconds=0.01, each=0.001),
    }
    found = spent_tariff(SPENT, TOOK, paces, work)
    assert found is not None
    assert found.alone == pytest.approx(100 * 0.01 + 10 * 0.044 * 0.018 / 0.012)
    without = spent_tariff(SPENT, TOOK, {"target": pace_of(1, 2)}, work)
    assert without is not None
    assert without.alone == pytest.approx(100 * 0.01 + 10 * 0.044)


def test_a_rota_by_hand():
    """The second row takes 3 and 4, the first 5 and 1: after 6 decodes only the second is left."""
    assert list(rota_of(2, 5, 3, 4, 1).decodes) == [(6, 2), (1, 1)]
    assert list(rota_of(1, 5, 3).decodes) == [(8, 1)]
    assert list(rota_of(4, 5, 3).decodes) == [(3, 2), (2, 1)]
    assert not list(Rota(2).decodes)


def test_measured_speeds_price_a_generator_at_its_share_of_the_seats():
    """Four of sixteen seats wait for the target: its tokens cost what they cost four in a decode."""
    one, four, many = (
        Speed(seats, prompt=100.0, decode=decode, bare_prompt=1, bare_decode=1, decode_vs_bare=1)
        for seats, decode in ((1, 10.0), (4, 20.0), (16, 40.0))
    )
    work = replace(BY_HAND, rsd={"draft": Tokens(0, 90), "target": Tokens(0, 30)})
    found = measured_tariff({"draft": [one, four, many], "target": [one, four, many]}, 16, work)
    assert found.prices["target"] == Price(0.01, 1 / 20)
    assert found.prices["draft"].write == pytest.approx((0.2 + (0.4 - 0.2) * 8 / 12) / 12)
    assert found.alone == pytest.approx(100 * 0.01 + 110 / 40)
    at_one_seat = measured_tariff({"draft": [one], "target": [one]}, 1, work)
    assert at_one_seat.prices["target"] == Price(0.01, 0.1)


def test_too_few_tokens_tell_no_speed():
    few, much = Usage(fed=100, generated=3), Usage(fed=100, generated=90)
    assert spent_tariff({"target": few}, {"target": RoleTime(1.0, 1.0)}, {}, BY_HAND) is None
    assert spent_tariff({"draft": much}, {"draft": RoleTime(1.0, 1.0)}, {}, BY_HAND) is None
    assert spent_tariff({"target": much}, {}, {}, BY_HAND) is None


def test_the_sentences_say_it_plainly():
    pays = make_verdict(BY_HAND, SIZES, tariff(CHEAP), measured_time=0.5).sentences
    assert pays[0].startswith("RSD takes 0.50 times the target's time (estimated: ")
    assert "it pays from an estimated" in pays[0]
    assert "it does not pay at 80% acceptance of tokens." in pays[1]
    assert "% acceptance of tokens on." in pays[0]
    assert "3.0" in pays[1]
    assert pays[1].startswith("RSD needs an estimated ")
    assert make_verdict(BY_HAND, SIZES, None).time is None


def test_a_prompt_that_rows_share_is_not_read_again():
    """A target that read 20 tokens of its prompt, and the draft's first step, before it wrote."""
    steps = (
        Step("a", "draft", 0.9, 30, 1.0),
        Step("b", "target", None, 40, 1.0, Rejected("x", 0.1, 10)),
        Step("c", "draft", 0.9, 5, 1.0),
    )
    usage: dict[Role, Usage] = {
        "draft": Usage(prompt=60, generated=45, fed=60),
        "target": Usage(prompt=60, generated=40, fed=50, reused=40),
    }
    record = replace(RSD.samples[0].records[0], steps=steps, usage=usage)
    record = replace(record, flops=replace(record.flops, target_only=2.0 * SIZES["target"] * (60 + 75)))
    load = Workload()
    load.add(record)
    assert load.same_texts == Tokens(20, 75)


def test_a_time_that_was_measured_is_told_where_no_price_is_known():
    """Of RSD whose target wrote nothing, so that its speed is unknown."""
    kept = tuple(sample_of("rsd", "rsd", i, threshold=0.0) for i in range(10))
    alone = runs_of(10, ("target",))[0]
    verdict = TaskRun("x", (StrategyRun("rsd", kept), alone)).verdict()
    assert verdict is not None
    own, other = (
        cost_of(sample.records[0] for sample in samples).seconds for samples in (kept, alone.samples)
    )
    assert verdict.time == Aspect(None, own / other, None, None)
    pays = "it pays" if own < other else "it does not pay at 100% acceptance of tokens"
    assert verdict.sentences[0] == f"RSD takes {own / other:.2f} times the target's time: {pays}."
    assert verdict.compute.predicted is not None


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (0.41, "RSD takes 0.41 times the target's time: it pays."),
        (1.7, "RSD takes 1.70 times the target's time: it does not pay at 80% acceptance of tokens."),
        (1.01, "RSD takes 1.01 times the target's time: about the same."),
    ],
)
def test_of_a_time_without_a_price_only_the_measurement_is_told(measured, said):
    assert make_verdict(BY_HAND, SIZES, None, measured_time=measured).sentences[0] == said


def test_it_does_not_give_advice_where_measurement_and_estimate_disagree():
    said = make_verdict(BY_HAND, SIZES, tariff(CHEAP), measured_time=1.4).sentences[0]
    assert "it does not pay. The estimate is wrong here" in said
    assert "would from" not in said


def test_about_the_same_is_no_verdict():
    assert (
        make_verdict(BY_HAND, SIZES, tariff(CHEAP), measured_time=1.02)
        .sentences[0]
        .endswith(": about the same.")
    )


@pytest.mark.parametrize(
    ("strategy", "steps", "accepted"),
    [
        (
            "rsd-n@2",
            (
                Step("a", "draft", 0.9, 60, 1.0, others=(Candidate("o", "draft", 0.2, 40),)),
                Step(
                    "b",
                    "target",
                    None,
                    50,
                    1.0,
                    Rejected("x", 0.1, 40),
                    others=(Candidate("p", "draft", 0, 60),),
                ),
            ),
            0.3,
        ),
        (
            "keep-better",
            (
                Step("a", "draft", 0.9, 60, 1.0),
                Step("b", "draft", 0.4, 140, 1.0, others=(Candidate("o", "target", 0.2, 50),)),
            ),
            0.3,
        ),
    ],
)
def test_drafts_beside_those_that_passed_were_not_accepted(strategy, steps, accepted):
    usage: dict[Role, Usage] = {
        "draft": Usage(prompt=60, generated=200, fed=110),
        "target": Usage(prompt=60, generated=50, fed=120),
        "prm": Usage(prompt=60, fed=260),
    }
    record = replace(RSD.samples[0].records[0], strategy=strategy, steps=steps, usage=usage)
    load = Workload()
    load.add(record)
    work = load.work()
    assert work is not None
    known = authorship([Sample.single(strategy, 0, {}, "1", Branch(record, True, "1", "right"))])
    assert [work.acceptance, known.acceptance_by_tokens] == pytest.approx([accepted] * 2)
    assert break_even_acceptance(work, tariff(PRICES, work)) is None
