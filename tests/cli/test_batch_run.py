"""What a batch makes of its runner's events, which are made by hand."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from rsd_cli.batch.answers import Told
from rsd_cli.batch.ledger import Done
from rsd_cli.batch.rows import Fields, Own, Row, parse_row
from rsd_cli.batch.source import Source
from rsd_cli.batch.tally import Tally
from rsd_cli.cli import batch_job, batch_run
from rsd_cli.cli.batch_job import Job
from rsd_cli.cli.batch_plan import Plan, Shard, settings_of
from rsd_cli.cli.batch_run import BatchRun, Brake, code_of
from rsd_cli.cli.shape import Shape
from rsd_cli.decoding.events import Streamed
from rsd_cli.decoding.participants import TooLongError, TwoVocabulariesError
from rsd_cli.decoding.runner import Failed, Finished
from rsd_cli.decoding.trajectory import Settings
from rsd_cli.display.batch import BatchDisplay
from rsd_cli.engine.sampling import Sampling
from rsd_cli.engine.templates import TemplateError
from rsd_cli.errors import EngineError, ModelError, ResourceError
from tests.batch.made import Clock


class Lines:
    """An output in memory."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def append(self, line: str) -> None:
        self.codes.append(json.loads(line)["error"]["code"])


def a_plan():
    return Plan(
        settings=Settings(sampling=Sampling(temperature=0.7)),
        trio_threshold=0.5,
        described={"trio": "tiny"},
        roles=("draft", "prm", "target"),
        fields=Fields(),
        seats=2,
        samples=2,
        form="plain",
        shard=Shard(),
        ordered=False,
        retry_errors=False,
        max_errors=0,
        reproducible=False,
    )


@pytest.mark.parametrize(
    ("run", "own", "expected"),
    [
        ("rsd", {}, 0.6),
        ("rsd", {"strategy": "keep-better"}, 0.6),
        ("rsd", {"strategy": "judge"}, 7 / 9),
        ("judge", {}, 0.6),
        ("judge", {"strategy": "judge"}, 0.6),
        ("judge", {"strategy": "judge", "threshold": 0.1}, 0.1),
        ("gsi@2", {"strategy": "gsi@1"}, 0.6),
        ("gsi@2", {"strategy": "judge"}, 7 / 9),
        ("judge", {"strategy": "rsd"}, 0.5),
        ("judge", {"strategy": "rsd", "threshold": 0.1}, 0.1),
    ],
)
def test_a_row_of_another_strategy_is_judged_on_that_ones_scale(run, own, expected):
    plan = replace(a_plan(), settings=Settings(run, 0.6, sampling=Sampling()), samples=1)
    row = Row(0, "a", "What?", (), Own(**own), None, "")
    made = settings_of(row, plan)
    assert isinstance(made, Settings)
    assert made.threshold == expected


def test_the_times_of_an_answer_begin_when_it_has_its_seats(tmp_path, monkeypatch):
    started: list[float] = []

    class Runner:
        def __init__(self, *_, **__):
            pass

        def run(self, problems):
            first, _waiting = problems
            seated: Any = SimpleNamespace(problem=first, began=7.0)
            yield Finished(seated, "eog", {}, {})

    monkeypatch.setattr(batch_run, "Runner", Runner)
    monkeypatch.setattr(batch_run, "recorded", lambda *given: started.append(given[-1]))
    (tmp_path / "questions.jsonl").write_text('{"id": "a", "question": "What?"}\n')
    source, tally = Source(str(tmp_path / "questions.jsonl")), Tally(Clock(), total=1)
    loaded: Any = SimpleNamespace(shape=SimpleNamespace(n_seats=2), on_several_devices=False)
    BatchRun(a_plan(), source, Done(), Lines(), tally, Brake(lambda: False)).run(loaded)
    assert started == [7.0]


def test_samples_of_a_row_that_failed_do_not_bring_it_back(tmp_path, monkeypatch):
    class Runner:
        def __init__(self, *_, **__):
            pass

        def run(self, problems):
            first, second = problems
            yield Streamed("a", "draft", "One")
            assert len(display.newest) == 1
            yield Failed(first, EngineError("No room."))
            yield Streamed("a", "draft", "Two")
            yield Failed(second, EngineError("No room."))

    monkeypatch.setattr(batch_run, "Runner", Runner)
    (tmp_path / "questions.jsonl").write_text('{"id": "a", "question": "What?"}\n')
    plan = a_plan()
    tally, lines = Tally(Clock(), total=1), Lines()
    source = Source(str(tmp_path / "questions.jsonl"))
    display = BatchDisplay(tally, samples=2)
    run = BatchRun(plan, source, Done(), lines, tally, Brake(lambda: False), display)
    loaded = SimpleNamespace(shape=SimpleNamespace(n_seats=2), on_several_devices=False)
    run.run(loaded)  # type: ignore[arg-type]
    assert display.newest == {}
    assert lines.codes == ["engine_error"]
    assert tally.failed == 1


@pytest.mark.parametrize(
    ("max_seconds", "reproducible", "waits"), [(None, False, False), (None, True, True), (9.0, False, True)]
)
def test_where_time_is_limited_no_row_begins_before_all_models_are_there(
    max_seconds, reproducible, waits, tmp_path, monkeypatch
):
    did: list[str] = []

    class Loaded:
        def __init__(self, *_):
            pass

        def __getattr__(self, name):
            did.append(name)
            return lambda *_: {}

    monkeypatch.setattr(batch_job, "LoadedTrio", Loaded)
    monkeypatch.setattr(BatchRun, "run", lambda *_: did.append("run"))
    (tmp_path / "questions.jsonl").write_text('{"id": "a", "question": "What?"}\n')
    plan = replace(a_plan(), settings=Settings(max_seconds=max_seconds), reproducible=reproducible)
    source, found = Source(str(tmp_path / "questions.jsonl")), SimpleNamespace(models={}, prm=None)
    brake, unused = Brake(lambda: False), Lines()
    job = Job(plan, Shape(), found, source, total=1, brake=brake, quiet=True, color=False)  # type: ignore[arg-type]
    job.run(unused, Done())
    assert ("wait_for_all" in did[: did.index("run")]) == waits


@pytest.mark.parametrize("stopped", [True, False])
def test_a_batch_that_is_stopped_while_it_reads_answers_back_has_no_counts(stopped, tmp_path):
    (tmp_path / "questions.jsonl").write_text('{"id": "a", "question": "What?"}\n')
    source, done = Source(str(tmp_path / "questions.jsonl")), Done()
    (line,) = filter(None, source.lines())
    row = parse_row(line, Fields())
    assert row
    done.add(Told(row.id, row.content, row.line, ok=True))
    unused: Any = None
    brake = Brake(lambda: stopped)
    job = Job(a_plan(), Shape(), unused, source, total=1, brake=brake, quiet=True, color=False)
    assert (job.run(unused, done) is None) == stopped


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TemplateError("The chat template fails."), "bad_messages"),
        (ModelError("The draft can't propose tokens to the target."), "unsupported"),
        (TwoVocabulariesError("Two vocabularies."), "unsupported"),
        (TooLongError("The question is too long."), "context_overflow"),
        (EngineError("No room."), "engine_error"),
        (ResourceError("No memory."), "error"),
    ],
)
def test_a_failure_has_a_code_that_says_what_it_is_due_to(error, code):
    assert code_of(error) == code
