from __future__ import annotations

import json
import random

import pytest

from rsd_cli.display.sanitise import visible, visible_json

UNSAFE = [
    *(code for code in range(0x20) if chr(code) not in "\n\t"),
    *range(0x7F, 0xA0),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    *range(0x200B, 0x2010),
    *range(0xE0000, 0xE0080),
    0xAD,
    0x61C,
    0x180E,
    0xFEFF,
    0xD800,
]


@pytest.mark.parametrize("code", UNSAFE)
def test_unsafe_characters_become_escapes(code):
    shown = visible(chr(code))
    assert shown.isprintable()
    assert int(shown[2:], 16) == code


def test_the_escapes_look_as_in_python():
    assert visible("\x1b[2J\r\u202e") == r"\x1b[2J\x0d\u202e"
    assert visible("\U000e0041") == r"\U000e0041"


def test_json_stays_the_same_json():
    text = json.dumps({"a": "".join(map(chr, UNSAFE)) + " é 中文 🙂 \n\t\\"}, ensure_ascii=False)
    shown = visible_json(text)
    assert json.loads(shown) == json.loads(text)
    assert shown.isprintable()
    assert "é 中文 🙂" in shown


def test_everything_else_stays():
    text = "line\n\ttab é 中文 × ² 🙂 ‘quotes’ …"
    assert visible(text) == text


def test_it_does_not_matter_where_chunks_are_cut():
    source = random.Random(7)
    alphabet = [*map(chr, UNSAFE), *"ab\n\t×🙂[];\\x1b"]
    for _ in range(300):
        text = "".join(source.choices(alphabet, k=source.randint(0, 40)))
        cut = source.randint(0, len(text))
        assert visible(text[:cut]) + visible(text[cut:]) == visible(text)
        assert visible(visible(text)) == visible(text)
