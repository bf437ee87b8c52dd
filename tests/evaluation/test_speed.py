"""What speeds say of a batch, by figures of one's own; and that both sides of a comparison get the same."""

from __future__ import annotations

import pytest

from rsd_cli.engine.cores import usable_cores
from rsd_cli.engine.floor import Floor, HighLevel
from rsd_cli.engine.llama import DecodeAborted
from rsd_cli.evaluation.speed import Effort, Speed, against_high_level, best_parallel, parts_seconds
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


@pytest.mark.parametrize(("asked", "threads"), [(3, 3), (0, usable_cores())])
def test_the_high_level_class_has_the_threads_and_layers_of_the_engine(
    asked, threads, tiny_engine, monkeypatch
):
    made = []

    class Watched(HighLevel):
        def __init__(self, *arguments):
            made.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr("rsd_cli.evaluation.speed.HighLevel", Watched)
    engine = tiny_engine()
    compared = against_high_level(engine, Effort(1, 16, 4), asked, 7)
    assert made == [(engine.model.path, engine.n_ctx, threads, 7)]
    assert compared.ratio > 0


def test_what_the_engine_is_compared_with_is_aborted_with_it(tiny_engine):
    stopped: list[bool] = []
    engine = tiny_engine(aborted=lambda: bool(stopped))
    floor, high = Floor(engine), HighLevel(engine.model.path, 64, 1, 0)
    prompt = engine.model.tokenize("Hello World")
    assert floor.read(prompt, 1) > 0
    assert high.write(prompt, 4, engine.context.aborted) > 0
    stopped.append(True)
    with pytest.raises(DecodeAborted):
        floor.write(2, 1, len(prompt))
    with pytest.raises(DecodeAborted):
        high.write(prompt, 4, engine.context.aborted)
    floor.close()
    high.close()
