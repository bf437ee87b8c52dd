"""What speeds say of a batch: arithmetic on figures by hand."""

from __future__ import annotations

from rsd_cli.evaluation.speed import Speed, best_parallel, parts_seconds
from rsd_cli.records import Role, Usage
from tests.batch.made import a_record


def speed(seats, decode, prompt=100.0):
    return Speed(seats, prompt, decode, prompt, decode, 1.0)


USAGE: dict[Role, Usage] = {
    "draft": Usage(generated=100, fed=100),
    "target": Usage(generated=50, fed=100),
    "prm": Usage(),
}
SPEEDS: dict[Role, list[Speed]] = {
    "draft": [speed(1, 50), speed(4, 100), speed(16, 200)],
    "target": [speed(1, 10), speed(4, 50), speed(16, 25)],
}


def test_tokens_take_as_long_as_bare_loops_need_for_them():
    one = {role: each[0] for role, each in SPEEDS.items()}
    assert parts_seconds(a_record(usage=USAGE), one) == 100 / 100 + 100 / 50 + 100 / 100 + 50 / 10


def test_the_best_number_of_rows_is_doubled_where_two_models_take_turns():
    best = best_parallel(a_record(usage=USAGE), SPEEDS)
    assert best is not None
    assert best.seats == 2 * 4
    assert best.gain == 9 / 4


def test_one_model_needs_no_more_seats_than_rows():
    alone: dict[Role, Usage] = {"draft": Usage(generated=100)}
    best = best_parallel(a_record(usage=alone), {"draft": SPEEDS["draft"]})
    assert best is not None
    assert (best.seats, best.gain) == (16, 4.0)


def test_one_number_of_rows_says_nothing():
    assert best_parallel(a_record(usage=USAGE), {role: each[:1] for role, each in SPEEDS.items()}) is None
