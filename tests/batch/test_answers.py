"""Lines of output in both forms, and what they tell when a run goes on."""

import json

import pytest

from rsd_cli.batch.answers import Told, finish_reason, line_of, read_back
from tests.batch.made import CONTENT, a_record, answered, failed

FORMS = ["openai", "plain"]
MODEL, CREATED = "starter", 1_700_000_000
ODD = 'Odd: \u2028 \u2029 \x85 \x0b \x00 \U0001f600 é \r\n \\ " end'


def written(outcome, form):
    line = line_of(outcome, form, MODEL, CREATED)
    assert "\n" not in line
    return json.loads(line)


def test_the_openai_form_is_a_line_of_a_batch_output():
    data = written(answered("72"), "openai")
    assert list(data) == ["id", "custom_id", "response", "error", "rsd"]
    assert (data["custom_id"], data["error"]) == ("q1", None)
    assert data["response"]["status_code"] == 200
    body = data["response"]["body"]
    assert data["id"] == data["response"]["request_id"] == body["id"]
    assert (body["object"], body["created"], body["model"]) == ("chat.completion", CREATED, MODEL)
    message = {"role": "assistant", "content": "A step.\n\nSo \\boxed{72}."}
    assert body["choices"] == [{"index": 0, "message": message, "finish_reason": "stop"}]
    assert body["usage"] == {"prompt_tokens": 78, "completion_tokens": 20, "total_tokens": 98}
    ours = data["rsd"]
    assert list(ours) == ["line", "content", "final_answer", "majority", "samples"]
    assert (ours["line"], ours["content"], ours["final_answer"], ours["majority"]) == (1, CONTENT, "72", None)
    assert ours["samples"] == [json.loads(a_record("72").to_json())]


def test_the_openai_form_of_a_failure_has_an_error_and_no_response():
    data = written(failed("q9", 9), "openai")
    assert list(data) == ["id", "custom_id", "response", "error", "rsd"]
    assert (data["custom_id"], data["response"]) == ("q9", None)
    assert data["error"] == {"code": "context_overflow", "message": "No room."}
    assert data["rsd"] == {"line": 9, "content": CONTENT}


def test_the_plain_form_is_flat():
    assert written(answered("72"), "plain") == {
        "id": "q1",
        "line": 1,
        "content": CONTENT,
        "input": "How many?",
        "output": "A step.\n\nSo \\boxed{72}.",
        "answer": "72",
        "finish_reason": "stop",
        "prompt_tokens": 78,
        "completion_tokens": 20,
        "total_tokens": 98,
        "target_tokens": 15,
        "rewards": [0.9, None],
        "authors": ["draft", "target"],
        "error": None,
    }


def test_the_plain_form_of_a_failure_has_no_output():
    error = {"code": "context_overflow", "message": "No room."}
    head = {"id": "q1", "line": 1, "content": CONTENT}
    assert written(failed(), "plain") == {**head, "output": None, "answer": None, "error": error}


def test_several_samples_have_a_majority_of_equal_numbers():
    outcome = answered("3", "0.5", "\\frac{1}{2}", None)
    data = written(outcome, "openai")
    assert data["rsd"]["majority"] == {"answer": "0.5", "votes": 2, "of": 4}
    assert data["rsd"]["final_answer"] == "0.5"
    assert [choice["index"] for choice in data["response"]["body"]["choices"]] == [0, 1, 2, 3]
    assert len(data["rsd"]["samples"]) == 4
    assert data["response"]["body"]["usage"]["prompt_tokens"] == 4 * 78
    plain = written(outcome, "plain")
    assert (plain["answer"], plain["votes"]) == ("0.5", 2)
    assert plain["answers"] == ["3", "0.5", "\\frac{1}{2}", None]
    assert plain["finish_reason"] == ["stop"] * 4
    assert [text.splitlines()[-1] for text in plain["output"]] == [
        "So \\boxed{3}.",
        "So \\boxed{0.5}.",
        "So \\boxed{\\frac{1}{2}}.",
        "Who knows?",
    ]


def test_samples_without_a_final_answer_have_no_majority():
    outcome = answered(None, None)
    assert written(outcome, "openai")["rsd"]["majority"] is None
    plain = written(outcome, "plain")
    assert (plain["answer"], plain["votes"], plain["answers"]) == (None, 0, [None, None])


@pytest.mark.parametrize(
    ("ended_by", "reason"),
    [
        ("eog", "stop"),
        ("max_tokens", "length"),
        ("max_steps", "length"),
        ("context", "length"),
        ("timeout", "length"),
        ("error", "stop"),
    ],
)
def test_an_answer_that_was_cut_short_says_so(ended_by, reason):
    assert finish_reason(a_record(ended_by=ended_by)) == reason


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("outcome", "ok"),
    [
        (answered("72", line=12, id="7"), True),
        (answered("1", "1", line=12, id="7"), True),
        (failed("7", 12), False),
        (answered(None, line=12, id="7", question=ODD), True),
    ],
)
def test_a_line_is_read_back(form, outcome, ok):
    line = line_of(outcome, form, MODEL, CREATED)
    assert read_back(line.encode()) == read_back(line.encode() + b"\n") == Told("7", CONTENT, 12, ok)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("outcome", [answered("72", id=ODD), failed(ODD)])
def test_odd_characters_in_ids_survive(form, outcome):
    line = line_of(outcome, form, MODEL, CREATED)
    assert "\n" not in line
    assert "\U0001f600" in line
    assert read_back(line.encode()).id == ODD


@pytest.mark.parametrize("form", FORMS)
def test_odd_characters_in_answers_survive(form):
    outcome = answered("72")
    odd = type(outcome)(outcome.row, (a_record("72", answer=ODD),))
    line = line_of(odd, form, MODEL, CREATED)
    assert "\n" not in line
    data = json.loads(line)
    content = (
        data["output"] if form == "plain" else data["response"]["body"]["choices"][0]["message"]["content"]
    )
    assert content == ODD


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"5",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b"9" * 5_000,
        b'{"prompt": "Q", "id": "a"}',
        b'{"id": "a", "line": 1, "error": null}',
        b'{"id": "a", "content": "00", "error": null}',
        b'{"id": "a", "content": "00", "line": 1}',
        b'{"id": 1, "content": "00", "line": 1, "error": null}',
        b'{"content": "00", "line": 1, "error": null}',
        b'{"id": "a", "content": 0, "line": 1, "error": null}',
        b'{"id": "a", "content": "00", "line": "1", "error": null}',
        b'{"id": "a", "content": "00", "line": 1, "error": null, "rsd": null}',
        b'{"id": "a", "content": "00", "line": 1, "error": null, "rsd": "text"}',
    ],
)
def test_what_is_no_line_of_output_is_refused(data):
    with pytest.raises(ValueError, match=r"."):
        read_back(data)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("outcome", [answered("72"), failed()])
def test_a_line_that_is_cut_anywhere_is_refused(form, outcome):
    line = line_of(outcome, form, MODEL, CREATED).encode()
    for end in range(len(line)):
        with pytest.raises(ValueError, match=r"."):
            read_back(line[:end])
