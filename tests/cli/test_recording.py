"""The record of an answer that did without the target: nobody waits for that, and nothing fails because of it."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from rsd_cli.cli.recording import recorded
from rsd_cli.cli.shape import Shape
from rsd_cli.cli.trio import LoadedTrio
from rsd_cli.cli.warm import FoundModel
from rsd_cli.decoding.runner import Finished, Runner
from rsd_cli.decoding.trajectory import Problem, Settings
from rsd_cli.engine.llama import DecodeAborted
from tests.cli.command import declared, trio

NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[assistant]"
)


@pytest.fixture
def drafted(tiny):
    """drafted(target, stopped): an answer by the draft alone, and the models."""
    made: list[LoadedTrio] = []

    def make(target, stopped=None):
        models: Any = {
            role: FoundModel(role, path, None, 1000) for role, path in (("draft", tiny()), ("target", target))
        }
        loaded = LoadedTrio(models, None, Shape(n_batch=64, threads=1), (stopped or threading.Event()).is_set)
        made.append(loaded)
        settings = Settings(strategy="draft", max_tokens=8, system="Think.")
        happened = Runner(loaded, settings).run([Problem("p", "What?")])
        return next(one for one in happened if isinstance(one, Finished)), loaded

    yield make
    for loaded in made:
        loaded.close()


def test_a_target_that_is_there_is_compared_with(drafted, tiny):
    finished, loaded = drafted(tiny("other"))
    loaded.engine("target")
    record = recorded(finished, loaded, {}, time.perf_counter())
    assert record.flops.target_only
    assert set(record.models) == {"draft", "target"}


def test_a_target_whose_template_refuses_the_question_costs_no_answer(drafted, tiny):
    finished, loaded = drafted(tiny("other", template=NO_SYSTEM))
    loaded.engine("target")
    record = recorded(finished, loaded, {}, time.perf_counter())
    assert record.answer
    assert record.flops.target_only is None


def test_a_target_that_could_not_be_loaded_yet_costs_no_answer(drafted, tiny):
    stopped = threading.Event()
    finished, loaded = drafted(tiny("other"), stopped)
    stopped.set()
    with pytest.raises(DecodeAborted):
        loaded.load("target").result()
    record = recorded(finished, loaded, {}, time.perf_counter())
    assert record.answer
    assert record.flops.target_only is None
    assert set(record.models) == {"draft"}


def test_a_batch_goes_on_where_the_target_would_refuse_rows_that_it_need_not_write(rsd, tiny):
    files = {"draft": tiny(seed=1), "target": tiny("other", seed=2, template=NO_SYSTEM)}
    rsd.write_models(declared(files, {"two": trio("draft", "target", threshold=0.0)}))
    questions = "".join(json.dumps({"id": f"r{i}", "question": "What?"}) + "\n" for i in range(4))
    (rsd.home / "questions.jsonl").write_text(questions)
    done = rsd("batch", "questions.jsonl", "-o", "a.jsonl", "--trio", "two", "-n", "40", "--threads", "1")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (rsd.home / "a.jsonl").read_text().splitlines()]
    assert sorted(line["custom_id"] for line in lines) == ["r0", "r1", "r2", "r3"]


def test_a_reproducible_record_does_not_depend_on_how_fast_the_target_loads(rsd, tiny):
    files = {"draft": tiny(seed=1), "target": tiny(seed=2, n_embd=512, n_layer=16)}
    rsd.write_models(declared(files, {"two": trio("draft", "target", threshold=0.0)}))
    (rsd.home / "questions.jsonl").write_text('{"id": "a", "question": "What?"}\n')
    command = ("batch", "questions.jsonl", "-o", "-", "--trio", "two", "-n", "1", "--reproducible")
    done = rsd(*command)
    assert done.code == 0, done.err
    (sample,) = json.loads(done.out)["rsd"]["samples"]
    assert sample["flops"]["target_only"]
    assert set(sample["models"]) == {"draft", "target"}
