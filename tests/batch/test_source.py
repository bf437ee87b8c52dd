"""Lines by number and bytes, whatever stands in them and however they arrive."""

import gzip
import os
import random

import pytest

from rsd_cli.batch import source as module
from rsd_cli.batch.source import CHUNK, Line, Source
from rsd_cli.errors import UsageError

BOM = b"\xef\xbb\xbf"


@pytest.fixture
def written(tmp_path):
    def write(data):
        path = tmp_path / "in.jsonl"
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def pipe():
    """The writing end, and the name of the reading end."""
    reading, writing = os.pipe()
    ends = {reading, writing}

    def close():
        ends.discard(writing)
        os.close(writing)

    yield writing, f"/dev/fd/{reading}", close
    for end in ends:
        os.close(end)


def numbered(*lines):
    return [Line(number, data, len(data)) for number, data in enumerate(lines, start=1)]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"one\n", [b"one"]),
        (b"one", [b"one"]),
        (b"one\ntwo\n", [b"one", b"two"]),
        (b"one\ntwo", [b"one", b"two"]),
        (b"one\n\n \ntwo\n", [b"one", b"", b" ", b"two"]),
        (b"\n\n", [b"", b""]),
        (BOM + b"one\n", [b"one"]),
        (BOM, []),
        (BOM + b"one\n" + BOM + b"two\n", [b"one", BOM + b"two"]),
        (b"one\xe2\x80\xa8still one\n", [b"one\xe2\x80\xa8still one"]),
        (b"one\xc2\x85still one\n", [b"one\xc2\x85still one"]),
        (b"one\x0b\x0c\x1cstill one\n", [b"one\x0b\x0c\x1cstill one"]),
        (b"one\rstill one\n", [b"one\rstill one"]),
        (b"\xff\xff\x00 no text\n", [b"\xff\xff\x00 no text"]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_lines_end_at_line_feeds_only(data, lines, packed, written):
    path = written(gzip.compress(data) if packed else data)
    assert list(Source(str(path)).lines()) == numbered(*lines)


def test_carriage_returns_before_line_feeds_are_left_out(written):
    lines = Source(str(written(b"one\r\n\r\ntwo\r\r\nthree\r"))).lines()
    assert [line.data for line in lines if line] == [b"one", b"", b"two\r", b"three"]


@pytest.mark.parametrize(
    "length", [1_001, CHUNK - 3, CHUNK - 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 999, 300_000]
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_line_that_is_too_long_is_told_by_its_size_alone(length, packed, written, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_LINE", 1_000)
    data = b"\n".join([b"a", b"b" * 1_000, b"c" * length, b"d", b"e" * 999, b"f" * length, b"g" * 1_000])
    for end in (b"", b"\n"):
        path = written(gzip.compress(data + end) if packed else data + end)
        assert list(Source(str(path)).lines()) == [
            Line(1, b"a", 1),
            Line(2, b"b" * 1_000, 1_000),
            Line(3, None, length),
            Line(4, b"d", 1),
            Line(5, b"e" * 999, 999),
            Line(6, None, length),
            Line(7, b"g" * 1_000, 1_000),
        ]


@pytest.mark.parametrize("length", [1_001, 2 * CHUNK, 2 * CHUNK + 7])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_last_line_that_is_too_long_is_told(length, end, written, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_LINE", 1_000)
    lines = list(Source(str(written(b"a\n" + b"b" * length + end))).lines())
    assert lines == [Line(1, b"a", 1), Line(2, None, length)]


def test_lines_over_the_borders_of_chunks_stay_whole(written):
    lines = [bytes([97 + size % 26]) * size for size in (CHUNK - 1, 1, CHUNK, 0, 3 * CHUNK, 5, CHUNK - 7)]
    path = written(b"\n".join(lines) + b"\n")
    assert list(Source(str(path)).lines()) == numbered(*lines)


def a_damaged(kind):
    numbers = random.Random(0)
    whole = gzip.compress(b"\n".join(numbers.randbytes(40).hex().encode() for _ in range(5_000)))
    middle = len(whole) // 2
    return {
        "cut": whole[:middle],
        "header alone": whole[:2],
        "checksum": whole[:-8] + bytes(4) + whole[-4:],
        "length": whole[:-4] + bytes(4),
        "block type": whole[:10] + b"\xff" + whole[11:],
        "middle": whole[:middle] + b"\xff" * 400 + whole[middle + 400 :],
        "garbage after it": whole + b"garbage",
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "cut",
        "header alone",
        "checksum",
        "length",
        "block type",
        "middle",
        "garbage after it",
    ],
)
def test_a_damaged_gzip_file_is_refused(kind, written):
    with pytest.raises(UsageError, match="damaged gzip") as caught:
        list(Source(str(written(a_damaged(kind)))).lines())
    assert "in.jsonl" in caught.value.message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize("packed", [False, True])
def test_utf_16_is_refused(encoding, packed, written):
    data = ("\ufeff" if encoding.endswith("be") else "").encode(encoding) + '{"prompt": "Hi"}\n'.encode(
        encoding
    )
    with pytest.raises(UsageError, match="UTF-16") as caught:
        list(Source(str(written(gzip.compress(data) if packed else data))).lines())
    assert caught.value.exit_code == 2
    assert "UTF-8" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "says"), [("", "is a directory"), ("gone.jsonl", "can't be read: No such file")]
)
def test_what_is_no_file_is_refused(name, says, tmp_path):
    with pytest.raises(UsageError, match=says) as caught:
        Source(str(tmp_path / name))
    assert caught.value.exit_code == 2
    assert str(tmp_path / name) in caught.value.message


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_can_be_read_as_often_as_wanted(packed, written):
    data = b"one\ntwo\n"
    source = Source(str(written(gzip.compress(data) if packed else data)))
    assert source.rereadable
    assert list(source.lines()) == list(source.lines()) == numbered(b"one", b"two")


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress],
)
def test_a_file_is_read_by_two_at_once(pack, written):
    numbers = random.Random(0)
    lines = [numbers.randbytes(40).hex().encode() for _ in range(5_000)]
    source = Source(str(written(pack(b"\n".join(lines)))))
    for one, other, line in zip(source.lines(), source.lines(), lines, strict=True):
        assert one and other
        assert one.data == other.data == line


def test_what_is_appended_after_opening_is_not_seen(written):
    path = written(b"one\ntwo")
    source = Source(str(path))
    with path.open("ab") as file:
        file.write(b" and more\nthree\n")
    assert list(source.lines()) == numbered(b"one", b"two")


def test_a_file_that_shrinks_ends_early(written):
    path = written(b"one\ntwo\n")
    source = Source(str(path))
    os.truncate(path, 4)
    assert list(source.lines()) == numbered(b"one")


def test_a_file_that_is_replaced_is_read_as_it_was(written, tmp_path):
    path = written(b"one\n")
    source = Source(str(path))
    (tmp_path / "other").write_bytes(b"another\n")
    (tmp_path / "other").replace(path)
    assert list(source.lines()) == numbered(b"one")


def test_a_pipe_yields_lines_as_they_arrive(pipe):
    writing, name, close = pipe
    source = Source(name)
    lines = source.lines()
    assert not source.rereadable
    assert [next(lines), next(lines)] == [None, None]
    os.write(writing, b"one\ntw")
    assert next(lines) == Line(1, b"one", 3)
    assert next(lines) is None
    os.write(writing, b"o\n")
    assert next(lines) == Line(2, b"two", 3)
    os.write(writing, b"three")
    assert next(lines) is None
    close()
    assert list(lines) == [Line(3, b"three", 5)]


def test_a_pipe_without_anything_in_it_ends(pipe):
    _, name, close = pipe
    source = Source(name)
    close()
    assert list(source.lines()) == []


@pytest.mark.parametrize("start", [BOM, b""])
def test_a_mark_at_the_start_of_a_pipe_is_left_out(start, pipe):
    writing, name, close = pipe
    os.write(writing, start + b"one\n")
    close()
    assert list(Source(name).lines()) == [Line(1, b"one", 3)]


def test_a_mark_that_arrives_byte_after_byte_is_left_out(pipe):
    writing, name, close = pipe
    lines = Source(name).lines()
    found = []
    for byte in BOM + b"one\n":
        os.write(writing, bytes([byte]))
        found.append(next(lines))
    close()
    assert [line for line in [*found, *lines] if line] == [Line(1, b"one", 3)]


@pytest.mark.parametrize(
    "size",
    [
        2,
        100,
        1,
    ],
)
def test_utf_16_in_a_pipe_is_refused_however_it_arrives(size, pipe):
    writing, name, _ = pipe
    data = "one\n".encode("utf-16")
    lines = Source(name).lines()
    with pytest.raises(UsageError, match="UTF-16"):
        for start in range(0, len(data), size):
            os.write(writing, data[start : start + size])
            next(lines)


@pytest.mark.parametrize("size", [1, 100])
def test_gzip_in_a_pipe_is_refused_however_it_arrives(size, pipe):
    writing, name, _ = pipe
    data = gzip.compress(b"one\n")
    lines = Source(name).lines()
    with pytest.raises(UsageError, match="gzipped") as caught:
        for start in range(0, len(data), size):
            os.write(writing, data[start : start + size])
            next(lines)
    assert "gunzip -c FILE | rsd batch -" in caught.value.hint


def test_a_source_knows_its_own_file(written, tmp_path, pipe):
    path = written(b"one\n")
    source = Source(str(path))
    (tmp_path / "other").write_bytes(b"one\n")
    (tmp_path / "soft").symlink_to(path)
    (tmp_path / "hard").hardlink_to(path)
    assert [source.is_file(tmp_path / name) for name in ("in.jsonl", "soft", "hard")] == [True] * 3
    assert not source.is_file(tmp_path / "other")
    assert not source.is_file(tmp_path / "gone")
    piped = Source(pipe[1])
    assert not piped.is_file(path)


def test_a_source_has_a_name_and_a_place(written, tmp_path, monkeypatch):
    written(b"one\n")
    monkeypatch.chdir(tmp_path)
    source = Source("in.jsonl")
    assert (source.name, source.place) == ("in.jsonl", str(tmp_path / "in.jsonl"))
