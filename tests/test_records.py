"""A record survives its JSON, and nothing else passes for one."""

import json
from dataclasses import replace

import pytest

from rsd_cli.records import Flops, Guesses, Record, Rejected, RoleTime, Step, Timings, Usage
from tests.batch.made import REWRITTEN, a_record, a_step


def through_json(record):
    return Record.from_json(json.loads(record.to_json()))


@pytest.mark.parametrize(
    "record",
    [
        a_record(),
        a_record(None, ended_by="timeout", steps=()),
        a_record(steps=(a_step(reward=None), a_step(audited=0.25), REWRITTEN)),
        a_record(steps=(a_step(author="target", guesses=Guesses(9, 4, 7, 2)),)),
        a_record(flops=Flops(1.5, 0.0, 0.0, None), usage={"draft": Usage(1, 2, 3, 4, 5)}),
        a_record(timings=Timings(0.5, None, 7.25, {})),
        a_record(timings=Timings(0.5, 1.0, 7.25, {"prm": RoleTime(1.5, 2.5)})),
        a_record(answer="</script>\u2028\x00 ½ \U0001f600", settings={"deep": [{"a": None}, 1.5, "x"]}),
        a_record(steps=(Step("", "target", None, 0, 0.0, Rejected("", None, 0)),)),
    ],
)
def test_a_record_survives_its_json(record):
    back = through_json(record)
    assert back == record
    assert through_json(back).to_json() == back.to_json()


def test_whole_numbers_are_read_as_the_type_of_their_field():
    back = through_json(a_record(steps=(a_step(ms=10, reward=1),)))
    assert [type(back.steps[0].ms), type(back.steps[0].reward), type(back.steps[0].tokens)] == [
        float,
        float,
        int,
    ]


WRONG = {
    "record has an unknown key 'colour'": lambda data: data.update(colour="red"),
    "'question'": lambda data: data.pop("question"),
    "schema is 2": lambda data: data.update(schema=2),
    "schema is None": lambda data: data.pop("schema"),
    "record.seed is '0'": lambda data: data.update(seed="0"),
    "record.seed is True": lambda data: data.update(seed=True),
    "record.seed is 0.0": lambda data: data.update(seed=0.0),
    "record.ended_by is 'tired'": lambda data: data.update(ended_by="tired"),
    "record.ended_by is ['eog']": lambda data: data.update(ended_by=["eog"]),
    "record.steps is {}": lambda data: data.update(steps={}),
    "record.steps[0].reward is 'high'": lambda data: data["steps"][0].update(reward="high"),
    "record.steps[0].reward is nan": lambda data: data["steps"][0].update(reward=float("nan")),
    "record.steps[0].ms is 1000": lambda data: data["steps"][0].update(ms=10**400),
    "record.steps[1].rejected has an unknown key 'why'": lambda data: data["steps"][1]["rejected"].update(
        why="bad"
    ),
    "record.usage is 'judge'": lambda data: data["usage"].update(judge=data["usage"]["draft"]),
    "record.usage.draft is 3": lambda data: data["usage"].update(draft=3),
    "record.flops is None": lambda data: data.update(flops=None),
    "record.timings has an unknown key 'sleep_ms'": lambda data: data["timings"].update(sleep_ms=1),
    "record.models.draft.parameters is None": lambda data: data["models"]["draft"].update(parameters=None),
    "record.answer is None": lambda data: data.update(answer=None),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_no_record_is_refused_with_its_place(message):
    data = json.loads(a_record().to_json())
    WRONG[message](data)
    with pytest.raises(ValueError) as refused:
        Record.from_json(data)
    assert message in str(refused.value)


@pytest.mark.parametrize("data", [None, [], "record", 3, {}])
def test_other_things_are_no_records(data):
    with pytest.raises(ValueError):
        Record.from_json(data)


def test_a_long_wrong_value_is_cut_short_in_the_message():
    data = json.loads(replace(a_record(), seed=0).to_json())
    data["seed"] = "x" * 10_000
    with pytest.raises(ValueError) as refused:
        Record.from_json(data)
    assert len(str(refused.value)) < 100
