"""From lines to questions: three forms, and every row that can't be asked by its own name."""

import json
from typing import Any

import pytest

from rsd_cli.batch.rows import BadRow, Fields, Own, Row, number_of, parse_row, row_id
from rsd_cli.batch.source import Line
from rsd_cli.engine.templates import Message

PLAIN = Fields()


def line_of(values, number=7):
    data = values if isinstance(values, bytes) else json.dumps(values).encode()
    return Line(number, data, len(data))


def row_of(values, fields=PLAIN, number=7):
    row = parse_row(line_of(values, number), fields)
    assert isinstance(row, Row), row
    assert row_id(line_of(values, number), fields) == row.id
    return row


def openai(**body):
    return {"custom_id": "q7", "method": "POST", "url": "/v1/chat/completions", "body": body}


def user(content):
    return {"role": "user", "content": content}


def test_openai_batch_lines_hold_a_conversation():
    turns = [
        {"role": "system", "content": "Be brief."},
        user("Hello"),
        {"role": "assistant", "content": "Hi"},
        user([{"type": "text", "text": "What is "}, {"type": "text", "text": "1+1?"}]),
    ]
    row = row_of(openai(model="any", messages=turns, max_tokens=9, temperature=0.5, top_p=0.9, seed=3, n=1))
    assert (row.line, row.id, row.question) == (7, "q7", "What is 1+1?")
    assert row.before == (Message("user", "Hello"), Message("assistant", "Hi"))
    assert row.own == Own(max_tokens=9, temperature=0.5, top_p=0.9, seed=3, system="Be brief.")
    assert row.gold is None


def test_inspect_samples_have_an_input_and_a_target():
    row = row_of({"id": 12, "input": "What is 1+1?", "target": "2"})
    assert (row.id, row.question, row.before, row.own, row.gold) == ("12", "What is 1+1?", (), Own(), "2")
    chat = row_of(
        {"id": "a", "input": [{"role": "system", "content": "S"}, user("Q")], "target": ["2", "two"]}
    )
    assert (chat.question, chat.own.system, chat.gold) == ("Q", "S", "2")


def test_a_format_that_is_text_is_what_every_answer_has():
    assert row_of(openai(messages=[user("Q")], response_format={"type": "text"})).question == "Q"


def test_choices_are_no_trouble_where_there_are_none_or_a_field_has_them():
    assert row_of({"id": "a", "input": "Q", "choices": None}).question == "Q"
    assert row_of({"id": "a", "asked": "A or B?", "choices": ["A"]}, Fields("asked")).question == "A or B?"


@pytest.mark.parametrize("field", ["input", "prompt", "question", "problem"])
def test_plain_rows_name_their_question_in_several_ways(field):
    assert row_of({"id": "a", field: " Ünï \U0001f600\u2028?"}).question == " Ünï \U0001f600\u2028?"


def test_plain_rows_can_hold_messages():
    row = row_of({"id": "a", "messages": [user("A"), {"role": "assistant", "content": ""}, user("B")]})
    assert (row.question, row.before) == ("B", (Message("user", "A"), Message("assistant", "")))


def test_plain_rows_set_what_is_their_own():
    own = {
        "temperature": 0,
        "top_p": 1,
        "seed": -1,
        "system": "",
        "strategy": "draft",
        "threshold": 1,
        "max_tokens": 5,
    }
    row = row_of({"prompt": "Q", **own})
    assert row.own == Own(5, 0.0, 1.0, -1, "", "draft", 1.0)
    assert isinstance(row.own.temperature, float)


def test_a_system_prompt_beside_the_messages_wins():
    assert (
        row_of({"system": "A", "messages": [{"role": "system", "content": "B"}, user("Q")]}).own.system == "A"
    )


def test_a_system_prompt_that_is_null_leaves_that_of_the_messages():
    turns = [{"role": "system", "content": "B"}, user("Q")]
    assert row_of({"system": None, "messages": turns}).own.system == "B"
    assert row_of(openai(system=None, messages=turns)).own.system == "B"
    assert row_of({"system": "", "messages": turns}).own.system == ""


@pytest.mark.parametrize(
    ("given", "longest"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": None}, 5),
        ({"max_tokens": None}, None),
        ({}, None),
    ],
)
def test_the_newer_name_of_the_longest_answer_wins(given, longest):
    assert row_of(openai(messages=[user("Q")], **given)).own.max_tokens == longest


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"id": 1}, "1"),
        ({"id": "1"}, "1"),
        ({"id": -1}, "-1"),
        ({"id": 0}, "0"),
        ({"custom_id": "a", "id": "b"}, "a"),
        ({"custom_id": None, "id": "b"}, "b"),
        ({"id": None}, "line-7"),
        ({}, "line-7"),
        ({"id": " a "}, " a "),
        ({"id": "x" * 512}, "x" * 512),
        ({"id": "\U0001f600\u2028"}, "\U0001f600\u2028"),
    ],
)
def test_rows_are_named_by_their_id_or_their_line(values, name):
    row = row_of({**values, "prompt": "Q"})
    assert row.id == name
    assert number_of(row.id) == number_of(name) < 1 << 64


def test_fields_can_have_other_names():
    values = {"id": "a", "key": 5, "prompt": "P", "text": "T"}
    row = row_of(values, Fields("text", "key"))
    assert (row.id, row.question) == ("5", "T")
    assert row_of(values, Fields(id="none")).id == "line-7"
    row = row_of({"turns": [user("A"), {"role": "assistant", "content": "B"}, user("C")]}, Fields("turns"))
    assert (row.question, len(row.before)) == ("C", 2)
    bad = parse_row(line_of(values), Fields("absent"))
    assert isinstance(bad, BadRow)
    assert (bad.code, "absent" in bad.message) == ("no_question", True)


@pytest.mark.parametrize(
    ("values", "gold"),
    [
        ({"answer": "5 #### 72"}, "5 #### 72"),
        ({"answer": 72}, "72"),
        ({"target": None, "answer": "a"}, "a"),
        ({"target": "t", "answer": "a"}, "t"),
        ({"target": []}, None),
        ({"answer": ""}, None),
        ({"answer": " \n"}, None),
        ({"target": [""]}, None),
        ({"target": "", "answer": "a"}, "a"),
        ({"answer": 0}, "0"),
        ({"target": {"a": 1}}, None),
        ({"target": [["a"]]}, None),
        ({}, None),
    ],
)
def test_a_known_answer_comes_along(values, gold):
    assert row_of({"question": "Q", **values}).gold == gold


@pytest.mark.parametrize("data", [b"", b" ", b"\t \r", b"\x0b\x0c"])
def test_blank_lines_are_no_rows(data):
    assert parse_row(line_of(data), PLAIN) is None


TEXT = [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": "x"}}]
ASSISTANT = {"role": "assistant", "content": "A"}
SYSTEM = {"role": "system", "content": "S"}
OWN, LINE = "q7", "line-7"


def plain(**values: Any) -> dict[str, Any]:
    return {"id": OWN, "prompt": "Q", **values}


BAD = [
    (b"5", "invalid_json", LINE),
    (b"[]", "invalid_json", LINE),
    (b'"text"', "invalid_json", LINE),
    (b"null", "invalid_json", LINE),
    (b"{", "invalid_json", LINE),
    (b'{"id": "q7", "prompt": "Q"} {}', "invalid_json", LINE),
    (b"{'id': 'q7'}", "invalid_json", LINE),
    (b"\x00", "invalid_json", LINE),
    (b'{"id": "q7", "prompt": "a\x0bb"}', "invalid_json", LINE),
    (b"[" * 100_000 + b"]" * 100_000, "invalid_json", LINE),
    (b'{"id": "q7", "prompt": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "invalid_json", LINE),
    (b'{"id": "q7", "prompt": "Q", "seed": ' + b"9" * 5_000 + b"}", "invalid_json", LINE),
    (b'{"id": "q7", "prompt": "Q", "temperature": NaN}', "invalid_json", LINE),
    (b'{"id": "q7", "prompt": "Q", "other": [Infinity]}', "invalid_json", LINE),
    (b'{"id": "q7", "prompt": "Q", "other": -Infinity}', "invalid_json", LINE),
    (b'{"id": "q7", "prompt": "Q", "temperature": 1e999}', "invalid_json", LINE),
    (b'{"id": "q7", "prompt": "Q", "prompt": "Q"}', "invalid_json", LINE),
    (b'{"id": "q7", "body": {"messages": [], "messages": []}}', "invalid_json", LINE),
    (b'{"id": "q7", "prompt": "\xff"}', "invalid_utf8", LINE),
    (b'{"id": "q7", "prompt": "\xed\xa0\x80"}', "invalid_utf8", LINE),
    (b'{"id": "q7", "prompt": "\\ud800"}', "invalid_text", OWN),
    (b'{"id": "q7", "prompt": "Q", "system": "\\udfff"}', "invalid_text", OWN),
    (b'{"id": "q7", "prompt": "Q", "answer": "\\ud800"}', "invalid_text", OWN),
    (b'{"id": "q7", "messages": [{"role": "user", "content": "\\ud800"}]}', "invalid_text", OWN),
    (b'{"id": "\\ud800", "prompt": "Q"}', "invalid_text", LINE),
    ({"id": OWN}, "no_question", OWN),
    (plain(prompt=""), "no_question", OWN),
    (plain(prompt=" \n\u2028"), "no_question", OWN),
    (plain(prompt=5), "no_question", OWN),
    (plain(prompt=True), "no_question", OWN),
    (plain(prompt=None), "no_question", OWN),
    (plain(prompt={"text": "Q"}), "no_question", OWN),
    (plain(prompt=[]), "no_question", OWN),
    ({"id": OWN, "input": "Which?", "choices": ["a", "b"], "target": "B"}, "unsupported", OWN),
    (plain(choices=["a", "b"], answer=1), "unsupported", OWN),
    (plain(prompt=[1, 2, 3]), "bad_messages", OWN),
    (plain(prompt=["Q"]), "bad_messages", OWN),
    (plain(id=1.5), "bad_id", LINE),
    (plain(id=1.0), "bad_id", LINE),
    (plain(id=True), "bad_id", LINE),
    (plain(id={}), "bad_id", LINE),
    (plain(id=["a"]), "bad_id", LINE),
    (plain(id=""), "bad_id", LINE),
    (plain(id=" "), "bad_id", LINE),
    (plain(id="x" * 600), "bad_id", LINE),
    (plain(id=int("9" * 600)), "bad_id", LINE),
    (plain(temperature="hot"), "bad_value", OWN),
    (plain(temperature=-1), "bad_value", OWN),
    (plain(temperature=True), "bad_value", OWN),
    (plain(temperature=10.5), "bad_value", OWN),
    (plain(temperature=10**400), "bad_value", OWN),
    (plain(temperature=[0]), "bad_value", OWN),
    (plain(max_tokens=0), "bad_value", OWN),
    (plain(max_tokens=1.5), "bad_value", OWN),
    (plain(max_tokens=True), "bad_value", OWN),
    (plain(max_completion_tokens=0, max_tokens=5), "bad_value", OWN),
    (plain(top_p=0), "bad_value", OWN),
    (plain(top_p=1.1), "bad_value", OWN),
    (plain(seed="1"), "bad_value", OWN),
    (plain(seed=1.5), "bad_value", OWN),
    (plain(threshold=2), "bad_value", OWN),
    (plain(system=5), "bad_value", OWN),
    (plain(strategy=["rsd"]), "bad_value", OWN),
    (openai(messages=[user("Q")]) | {"method": "GET"}, "bad_request", OWN),
    (openai(messages=[user("Q")]) | {"url": "/v1/embeddings"}, "bad_request", OWN),
    (openai(messages=[user("Q")]) | {"url": 5}, "bad_request", OWN),
    (openai(messages=[user("Q")], tools=[{"type": "function"}]), "unsupported", OWN),
    (openai(messages=[user("Q")], response_format={"type": "json_object"}), "unsupported", OWN),
    (openai(messages=[user("Q")], response_format={"type": "text", "more": 1}), "unsupported", OWN),
    (openai(messages=[user("Q")], stop=["."]), "unsupported", OWN),
    (openai(messages=[user("Q")], logprobs=True), "unsupported", OWN),
    (openai(messages=[user("Q")], presence_penalty=0.5), "unsupported", OWN),
    (openai(messages=[user("Q")], frequency_penalty=-0.5), "unsupported", OWN),
    (openai(messages=[user("Q")], logit_bias={"50256": -100}), "unsupported", OWN),
    (openai(messages=[user("Q")], n=2), "unsupported", OWN),
    (openai(messages=[user(TEXT)]), "unsupported", OWN),
    (openai(messages=[user(["Q"])]), "unsupported", OWN),
    (openai(messages=[user([])]), "no_question", OWN),
    (openai(messages=[user("Q"), ASSISTANT]), "no_question", OWN),
    (openai(messages=[SYSTEM]), "no_question", OWN),
    (openai(messages=[]), "no_question", OWN),
    (openai(), "no_question", OWN),
    (openai(messages=[SYSTEM, SYSTEM, user("Q")]), "bad_messages", OWN),
    (openai(messages=[user("Q"), SYSTEM, user("Q")]), "bad_messages", OWN),
    (openai(messages=[user(None)]), "bad_messages", OWN),
    (openai(messages=[{"role": "tool", "content": "Q"}]), "bad_messages", OWN),
    (openai(messages=[{"role": ["user"], "content": "Q"}]), "bad_messages", OWN),
    (openai(messages=[{"content": "Q"}]), "bad_messages", OWN),
]


@pytest.mark.parametrize(("values", "code", "name"), BAD, ids=[f"{i}-{row[1]}" for i, row in enumerate(BAD)])
def test_a_row_that_can_not_be_asked_says_why(values, code, name):
    bad = parse_row(line_of(values), PLAIN)
    assert isinstance(bad, BadRow), bad
    assert (bad.line, bad.id, bad.code) == (7, name, code)
    assert bad.message.endswith(".")
    assert "\n" not in bad.message
    assert int(bad.content, 16) < 1 << 64
    bad.message.encode()
    assert row_id(line_of(values), PLAIN) == name


def test_a_line_that_is_too_long_is_a_bad_row():
    line = Line(7, None, 5_000_000)
    bad = parse_row(line, PLAIN)
    assert isinstance(bad, BadRow)
    assert (bad.id, bad.code) == ("line-7", "too_long")
    assert "5,000,000" in bad.message
    assert row_id(line, PLAIN) == "line-7"


@pytest.mark.parametrize("field", ["temperature", "method", "url", "n"])
def test_no_depth_of_nesting_ends_a_run(field):
    for depth in range(700, 1_010):
        nested = b"[" * depth + b"]" * depth
        outer, inner = (field.encode(), b"x") if field in ("method", "url") else (b"x", field.encode())
        data = b'{"id": "q7", "%s": %s, "body": {"%s": %s}}' % (outer, nested, inner, nested)
        assert isinstance(parse_row(line_of(data), PLAIN), BadRow)


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(openai(messages=[user("Q")]) | {"method": LONG}, id="method"),
        pytest.param(openai(messages=[user("Q")]) | {"url": LONG}, id="url"),
        pytest.param(openai(messages=[user("Q")], n=LONG), id="n"),
        pytest.param(plain(temperature=LONG), id="temperature"),
        pytest.param(plain(strategy=[LONG]), id="strategy"),
        pytest.param(b'{"%s": 1, "%s": 2}' % (LONG.encode(), LONG.encode()), id="key"),
    ],
)
def test_a_reason_stays_short(values):
    bad = parse_row(line_of(values), PLAIN)
    assert isinstance(bad, BadRow)
    assert len(bad.message) < 500


def test_a_field_that_is_null_holds_no_question():
    assert row_of({"id": "a", "input": None, "question": "Q"}).question == "Q"


def test_null_stands_for_nothing_given():
    null = dict.fromkeys(("tools", "temperature", "max_tokens", "top_p", "seed", "system", "strategy"))
    assert row_of(openai(messages=[user("Q")], **null)).own == Own()


@pytest.mark.parametrize("nothing", [None, 0, 0.0, False, [], {}, ""])
def test_what_would_change_nothing_may_be_there(nothing):
    fields = ("stop", "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty", "logit_bias")
    assert row_of(openai(messages=[user("Q")], **dict.fromkeys(fields, nothing))).own == Own()


def test_no_number_of_choices_means_one():
    assert row_of(openai(messages=[user("Q")], n=None)).own == Own()


BASE = {"id": "a", "question": "Q", "temperature": 0.5}


@pytest.mark.parametrize(
    "change",
    [
        {"question": "Q "},
        {"temperature": 0.6},
        {"temperature": None},
        {"top_p": 0.5},
        {"seed": 0},
        {"max_tokens": 5},
        {"system": ""},
        {"strategy": "draft"},
        {"threshold": 0.5},
        {"input": [user("before"), ASSISTANT, user("Q")]},
    ],
)
def test_the_content_changes_with_what_an_answer_depends_on(change):
    assert row_of(BASE | change).content != row_of(BASE).content


@pytest.mark.parametrize(
    "change", [{"answer": "72"}, {"target": "72"}, {"id": "b"}, {"other": 1}, {"seed": None}, {"input": "Q"}]
)
def test_the_content_stays_with_what_an_answer_does_not_depend_on(change):
    assert row_of(BASE | change, number=9).content == row_of(BASE).content


def test_a_bad_row_is_known_by_its_bytes():
    one, same, other = (parse_row(line_of(data, n), PLAIN) for n, data in ((1, b"5"), (2, b"5"), (3, b"6")))
    assert one and same and other
    assert one.content == same.content != other.content
