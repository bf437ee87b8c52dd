"""Turns from a pipe: a line each, or a block in triple quotes."""

from __future__ import annotations

import contextlib
import io
import time

import pytest

from rsd_cli.chat.prompt import LONGEST, Lines, is_open, unquoted
from rsd_cli.cli.question import MAX_BYTES
from rsd_cli.errors import UsageError


def turns(text):
    """Every turn of an input, until its end."""
    reader, read = Lines(io.StringIO(text, newline=None)), []
    with contextlib.suppress(EOFError):
        while True:
            read.append(reader.read())
    return read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n\n  \n\t\n", []),
        ("one", ["one"]),
        ("one\ntwo\n", ["one", "two"]),
        ("\n\none\n\n \ntwo\n\n", ["one", "two"]),
        ("one\r\ntwo\r\n", ["one", "two"]),
        ("  one  \n", ["  one  "]),
        ("/help\n /help\n", ["/help", " /help"]),
        ("one\u2028still one\x0c\x85\n", ["one\u2028still one\x0c\x85"]),
        ('"""one"""\n', ["one"]),
        ('"""\none\n\n  two\n"""\nthree\n', ["one\n\n  two", "three"]),
        ('"""one\ntwo"""\nthree', ["one\ntwo", "three"]),
        ('  """one\ntwo"""  \nthree', ["one\ntwo", "three"]),
        ('"""\r\none\r\ntwo\r\n"""\r\n', ["one\ntwo"]),
        ('"""a "quoted" ""word"" here"""\n', ['a "quoted" ""word"" here']),
        ('"""one\nit\'s """ within\ntwo"""', ['one\nit\'s """ within\ntwo']),
        ('""""""\nnext\n', ["", "next"]),
        ('not """ at the beginning\nnext\n', ['not """ at the beginning', "next"]),
        ('""\nnext\n', ['""', "next"]),
    ],
)
def test_turns_of_an_input(text, expected):
    assert turns(text) == expected


def test_there_is_nobody_to_edit_a_default():
    assert Lines(io.StringIO("one\n")).read("default") == "one"


@pytest.mark.parametrize("text", ['"""', '"""one\ntwo\n', '""""', '"""""', 'first\n"""one\n""" two\n'])
def test_a_block_without_its_end_is_no_turn_and_not_lost_in_silence(text):
    with pytest.raises(UsageError, match="ends within a block that began with") as refused:
        turns(text)
    assert refused.value.hint == 'End it with """.'


def test_bytes_that_are_no_text_are_an_error_of_ours():
    source = io.TextIOWrapper(io.BytesIO(b"fine\ncaf\xe9 \n"), "utf-8")
    with pytest.raises(UsageError, match="The input is no text"):
        [Lines(source).read() for _ in range(2)]


def test_of_a_line_that_is_too_long_nothing_becomes_another_turn():
    long, after = turns("x" * (LONGEST + 1000) + "y\nafter\n")
    assert len(long) > MAX_BYTES  # so that whoever reads it refuses it
    assert "y" not in long
    assert after == "after"


def test_a_line_of_the_greatest_length_is_whole():
    assert turns("x" * LONGEST + "\nafter") == ["x" * LONGEST, "after"]


def test_a_block_of_many_lines_takes_no_longer_for_each():
    began = time.perf_counter()
    (block,) = turns('"""\n' + "line\n" * 50_000 + '"""\n')
    assert block.count("\n") == 49_999
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("text", ['"""', '""""', '"""""', '"""a', ' \n"""a\n', '"""a""', '"""a""" b'])
def test_blocks_that_are_open(text):
    assert is_open(text)
    assert unquoted(text) == text


@pytest.mark.parametrize("text", ["", "a", '""', '"" "', 'a """', '""""""', '"""a"""', ' """a"""\n'])
def test_texts_that_are_not(text):
    assert not is_open(text)
