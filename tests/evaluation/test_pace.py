"""What a decode costs, found again from answers that it was simulated for, and the decodes of a rota by hand."""

import random

import pytest

from rsd_cli.evaluation.pace import Pace, PaceFit, Rota
from rsd_cli.records import RoleTime, Usage

TRUE = Pace(decode=0.03, read=0.004, write=0.006)


def simulated(pace: Pace, rows: int, seed: int, noise: float = 0.0) -> PaceFit:
    """Answers of a target that writes beside up to so many others, and reads steps in between."""
    rng, fit = random.Random(seed), PaceFit()
    for _ in range(60):
        steps = rng.randint(1, 9)
        read, written = rng.randint(80, 160) + 25 * steps, rng.randint(15, 30) * steps
        decodes = written / rng.uniform(1, rows) + steps * rng.uniform(0.3, 1)
        seconds = pace.seconds(decodes, read, written) * rng.gauss(1, noise)
        fit.add(Usage(fed=read, generated=written), RoleTime(300 * seconds, 700 * seconds, decodes))
    return fit


def test_it_finds_the_pace_that_answers_were_given_at():
    found = simulated(TRUE, rows=8, seed=1).pace()
    assert found is not None
    assert found.decode == pytest.approx(TRUE.decode, rel=1e-6)
    assert found.read == pytest.approx(TRUE.read, rel=1e-6)
    assert found.write == pytest.approx(TRUE.write, rel=1e-6)


def test_beyond_the_rows_that_it_saw_it_is_still_near():
    for seed in range(20):
        found = simulated(TRUE, rows=8, seed=seed, noise=0.03).pace()
        assert found is not None
        expected = TRUE.seconds(400 / 16, 100, 400)
        assert found.seconds(400 / 16, 100, 400) == pytest.approx(expected, rel=0.1)


def test_one_row_at_a_time_tells_what_one_row_costs():
    found = simulated(TRUE, rows=1, seed=2, noise=0.05).pace()
    assert found is not None
    assert found.seconds(401, 100, 400) == pytest.approx(TRUE.seconds(401, 100, 400), rel=0.05)


def test_nothing_costs_less_than_nothing():
    for seed in range(50):
        found = simulated(Pace(0.0, 0.004, 0.0), rows=4, seed=seed, noise=0.5).pace()
        assert found is not None
        assert min(found.decode, found.read, found.write) >= 0


def test_too_few_answers_or_such_without_decodes_tell_nothing():
    fit = PaceFit()
    assert fit.pace() is None
    for _ in range(50):
        fit.add(Usage(fed=100, generated=50), RoleTime(10.0, 20.0))
    assert fit.pace() is None


def test_a_rota_by_hand():
    rota = Rota(2)
    assert rota.decodes == 0
    for tokens in (5, 3, 4, 1):  # the second row takes 3 and 4, the first 5 and 1
        rota.add(tokens)
    assert rota.decodes == 7
    alone = Rota(1)
    for tokens in (5, 3, 4, 1):
        alone.add(tokens)
    assert alone.decodes == 13
