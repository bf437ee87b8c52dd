"""An output file belongs to one run and one process, and ends in whole lines whatever happened to it."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import textwrap

import pytest

from rsd_cli.batch.answers import Told, line_of
from rsd_cli.batch.ledger import Done, Ledger, difference, manifest_path, read_manifest
from rsd_cli.errors import OutputError, ResourceError, UsageError
from rsd_cli.output import OwnFile, write_whole
from tests.batch.made import CONTENT, a_row, answered, failed

SETTINGS = {"trio": "starter", "threshold": 0.7, "models": {"draft": "aa"}}


def a_line(name, line=1, *, ok=True, message="naïve 𝄞"):
    outcome = answered("1", id=name, line=line) if ok else failed(name, line, message)
    return line_of(outcome, "plain", "starter", 0)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.jsonl"


@pytest.fixture
def opened(output):
    """Opens the output; every ledger is closed at the end, or before by close()."""
    ledgers = []

    def open_(settings=SETTINGS, **options):
        ledgers.append(Ledger(output, settings, "/in.jsonl", **options))
        return ledgers[-1]

    def close():
        while ledgers:
            ledgers.pop().close()

    open_.close = close  # type: ignore[attr-defined]
    yield open_
    close()


@pytest.fixture
def filled(opened, output):
    """Writes lines through a ledger; returns the output's bytes."""

    def fill(*lines):
        ledger = opened()
        for line in lines:
            ledger.append(line)
        opened.close()
        return output.read_bytes()

    return fill


def python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out)


def test_a_new_file_is_empty_and_has_a_manifest(opened, output):
    ledger = opened()
    assert output.read_bytes() == b""
    assert (ledger.torn, ledger.done.n_rows) == (0, 0)
    manifest = read_manifest(output)
    assert manifest == {"schema": 1, "settings": SETTINGS, "input": "/in.jsonl", "pid": os.getpid()}
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.jsonl", "out.jsonl.run.json"]


def test_the_same_settings_continue(filled, opened, output):
    before = filled(a_line("a"), a_line("b", 2, ok=False))
    ledger = opened(dict(reversed(SETTINGS.items())))
    assert (ledger.torn, ledger.done.n_rows) == (0, 2)
    assert (ledger.done.failed("a"), ledger.done.failed("b")) == (False, True)
    assert ledger.done.is_same("a", CONTENT)
    ledger.append(a_line("c", 3))
    assert output.read_bytes() == before + a_line("c", 3).encode() + b"\n"


def test_a_last_line_that_is_torn_anywhere_is_cut_off(filled, opened, output):
    first = (a_line("a") + "\n").encode()
    last = filled(a_line("a"), a_line("b", 2, ok=False)).removeprefix(first)
    assert "𝄞".encode() in last
    for kept in range(len(last) - 1):
        output.write_bytes(first + last[:kept])
        ledger = opened()
        assert output.read_bytes() == first
        assert (ledger.torn, ledger.done.n_rows) == (kept, 1)
        ledger.append(a_line("c", 3))
        opened.close()
        assert [json.loads(line)["id"] for line in output.read_bytes().splitlines()] == ["a", "c"]


def test_a_first_line_that_is_torn_is_cut_off(filled, opened, output):
    whole = filled(a_line("a"))
    output.write_bytes(whole[:-2])
    ledger = opened()
    assert (ledger.torn, ledger.done.n_rows) == (len(whole) - 2, 0)
    assert output.read_bytes() == b""


@pytest.mark.parametrize("tail", [b"\0" * 5_000, b"\xf0\x9d", b"5", b" ", b'{"id": "a"}'])
def test_a_last_line_without_sense_is_cut_off(tail, filled, opened, output):
    whole = filled(a_line("a"))
    output.write_bytes(whole + tail)
    assert opened().torn == len(tail)
    assert output.read_bytes() == whole


@pytest.mark.parametrize("lines", [[a_line("a")], [a_line("a"), a_line("b", 2)]])
def test_a_whole_last_line_without_its_end_is_kept(lines, filled, opened, output):
    whole = filled(*lines)
    output.write_bytes(whole[:-1])
    ledger = opened()
    assert output.read_bytes() == whole
    assert (ledger.torn, ledger.done.n_rows) == (0, len(lines))
    ledger.append(a_line("c", 3))
    assert output.read_bytes() == whole + a_line("c", 3).encode() + b"\n"


@pytest.mark.parametrize(
    "garbage", [b"garbage\n", b"\n", b"{}\n", b"\xff\n", b'{"id": "a", "prompt": "Q"}\n']
)
def test_garbage_between_lines_is_refused_and_left_alone(garbage, filled, opened, output):
    lines = [line + b"\n" for line in filled(a_line("a"), a_line("b", 2)).split(b"\n")[:-1]]
    output.write_bytes(lines[0] + garbage + lines[1])
    with pytest.raises(OutputError, match=r"Line 2 of .*out\.jsonl") as caught:
        opened()
    assert caught.value.exit_code == 5
    assert "--overwrite" in caught.value.hint
    assert output.read_bytes() == lines[0] + garbage + lines[1]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({**SETTINGS, "threshold": 0.5}, "threshold was 0.7, now 0.5"),
        ({**SETTINGS, "seed": 1}, "seed was null, now 1"),
        ({"trio": "starter", "models": {"draft": "aa"}}, "threshold was 0.7, now null"),
        ({**SETTINGS, "models": {"draft": "bb"}}, 'models.draft was "aa", now "bb"'),
        (
            {**SETTINGS, "trio": "big", "threshold": 1},
            'trio was "starter", now "big"; threshold was 0.7, now 1',
        ),
    ],
)
def test_other_settings_are_refused_by_name(other, says, filled, opened, output):
    before = filled(a_line("a")), manifest_path(output).read_bytes()
    with pytest.raises(OutputError) as caught:
        opened(other)
    assert says in caught.value.message
    assert (output.read_bytes(), manifest_path(output).read_bytes()) == before


def test_an_empty_file_takes_any_settings(filled, opened, output):
    filled()
    opened({"trio": "other"})
    assert read_manifest(output)["settings"] == {"trio": "other"}


def test_a_long_value_is_shortened():
    assert difference({"system": "a"}, {"system": "x" * 5_000}).count("x") < 80
    assert difference(SETTINGS, dict(SETTINGS)) == ""


NO_MANIFESTS = (b"", b"{", b"[]", b"{}", b"\xff", b'{"settings": 5}', b'{"settings": null}', b"[" * 100_000)


@pytest.mark.parametrize("manifest", [None, *NO_MANIFESTS], ids=lambda manifest: repr(manifest)[:20])
def test_a_file_without_a_manifest_is_refused(manifest, filled, opened, output):
    before = filled(a_line("a"))
    manifest_path(output).unlink()
    if manifest is not None:
        manifest_path(output).write_bytes(manifest)
    with pytest.raises(OutputError, match=r"out\.jsonl\.run\.json") as caught:
        opened()
    assert caught.value.exit_code == 5
    assert output.read_bytes() == before


@pytest.mark.parametrize("content", [b"garbage\n", b"", None])
def test_overwriting_starts_anew(content, filled, opened, output):
    filled(a_line("a"))
    if content is not None:
        output.write_bytes(content)
    ledger = opened({"trio": "other"}, overwrite=True)
    assert output.read_bytes() == b""
    assert (ledger.done.n_rows, read_manifest(output)["settings"]) == (0, {"trio": "other"})


OPEN = """
    import json, sys, time
    from pathlib import Path
    from rsd_cli.batch.ledger import Ledger
    from rsd_cli.errors import RSDError
    began = time.perf_counter()
    try:
        Ledger(Path(sys.argv[1]), json.loads(sys.argv[2]), "/in.jsonl", overwrite=sys.argv[3] == "True")
        print(json.dumps(["opened", 0, time.perf_counter() - began]))
    except RSDError as error:
        print(json.dumps([error.message, error.exit_code, time.perf_counter() - began]))
"""


@pytest.mark.parametrize("overwrite", [False, True])
def test_another_process_is_refused_at_once_while_the_file_is_open(overwrite, opened, output):
    opened().append(a_line("a"))
    before = output.read_bytes()
    message, exit_code, seconds = said(python(OPEN, output, json.dumps(SETTINGS), overwrite))
    assert f"process {os.getpid()}" in message
    assert exit_code == 5
    assert seconds < 2
    assert output.read_bytes() == before
    opened.close()
    assert said(python(OPEN, output, json.dumps(SETTINGS), overwrite))[0] == "opened"


def test_a_disk_without_locks_is_no_other_process(opened, output, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for open_file in (opened, lambda: OwnFile(output, "The record")):
        with pytest.raises(
            UsageError, match=f"{output} can't be locked: {os.strerror(errno.ENOLCK)}"
        ) as refused:
            open_file()
        assert "another disk" in refused.value.hint


def test_a_killed_process_leaves_no_lock(opened, output):
    code = """
        import sys, time
        from pathlib import Path
        from rsd_cli.batch.ledger import Ledger
        ledger = Ledger(Path(sys.argv[1]), {}, "/in.jsonl")
        ledger.append(sys.argv[2])
        print("written", flush=True)
        time.sleep(60)
    """
    process = python(code, output, a_line("a"))
    assert process.stdout
    assert process.stdout.readline() == "written\n"
    with pytest.raises(OutputError, match=f"process {process.pid}"):
        opened({})
    process.kill()
    process.communicate()
    assert opened({}).done.n_rows == 1


@pytest.mark.parametrize("change", ["deleted", "replaced", "moved"])
def test_a_file_that_went_away_is_not_written(change, opened, output, tmp_path):
    ledger = opened()
    ledger.append(a_line("a"))
    if change == "moved":
        output.rename(tmp_path / "moved.jsonl")
    else:
        output.unlink()
    if change == "replaced":
        output.write_bytes(b"another's\n")
    with pytest.raises(OutputError, match="moved or deleted") as caught:
        ledger.append(a_line("b", 2))
    assert caught.value.exit_code == 5
    assert "without --overwrite" in caught.value.hint
    if change == "replaced":
        assert output.read_bytes() == b"another's\n"
    if change == "moved":
        (tmp_path / "moved.jsonl").rename(output)
        ledger.append(a_line("b", 2))
        assert len(output.read_bytes().splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "says"),
    [("", "no regular file"), ("/dev/null", "no regular file"), ("gone/out.jsonl", "No such file")],
)
def test_what_can_not_be_an_output_is_refused(name, says, tmp_path):
    with pytest.raises(UsageError, match=says) as caught:
        Ledger(tmp_path / name, SETTINGS, "/in.jsonl")
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_refused_without_waiting_for_a_reader(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no regular file"):
        Ledger(tmp_path / "pipe", SETTINGS, "/in.jsonl")


def test_a_link_leads_to_the_file(tmp_path):
    (tmp_path / "real.jsonl").touch()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    ledger = Ledger(tmp_path / "link.jsonl", SETTINGS, "/in.jsonl")
    ledger.append(a_line("a"))
    ledger.close()
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "real.jsonl").read_bytes() == a_line("a").encode() + b"\n"


FULL = """
    import json, resource, signal, sys
    from pathlib import Path
    from rsd_cli.batch.ledger import Ledger
    from rsd_cli.errors import ResourceError
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    ledger, line, size = Ledger(Path(sys.argv[1]), {}, "/in.jsonl"), sys.argv[2], int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    written = 0
    try:
        while written < 1000:
            ledger.append(line)
            written += 1
    except ResourceError as error:
        print(json.dumps([written, error.exit_code, error.message]))
"""


@pytest.mark.parametrize("extra", [0, 1, 100])
def test_a_full_disk_leaves_whole_lines(extra, opened, output):
    line = a_line("a")
    size = 3 * len(line.encode() + b"\n") + extra
    written, exit_code, message = said(python(FULL, output, line, size))
    assert (written, exit_code) == (3, 4)
    assert f"No room left to write {output}" in message
    assert output.read_bytes() == (line.encode() + b"\n") * 3
    ledger = opened({})
    assert ledger.torn == 0
    ledger.append(line)
    assert len(output.read_bytes().splitlines()) == 4


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(28, "No space left on device"), (ResourceError, "No room left")),
        (KeyboardInterrupt("stopped"), (KeyboardInterrupt, "stopped")),
        (OutputError("Not this one."), (OutputError, "Not this one")),
    ],
)
def test_a_file_that_can_not_be_written_whole_is_not_touched(error, seen, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def pieces():
        yield b"after"
        raise error

    kind, message = seen
    with pytest.raises(kind, match=message):
        write_whole(path, pieces())
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("file", b"before")]
    write_whole(path, [b"af", b"ter"])
    assert path.read_bytes() == b"after"


GOOD, BAD = (Told("a", CONTENT, 1, ok=ok) for ok in (True, False))


@pytest.mark.parametrize(
    ("told", "is_failed"),
    [
        ([GOOD], False),
        ([BAD], True),
        ([BAD, GOOD], False),
        ([GOOD, BAD], False),
        ([BAD, BAD], True),
        ([BAD, GOOD, BAD], False),
    ],
)
def test_a_good_record_stays_good(told, is_failed):
    done = Done()
    for each in told:
        done.add(each)
    assert (done.knows("a"), done.failed("a"), done.n_rows) == (True, is_failed, 1)
    assert (done.knows("b"), done.failed("b")) == (False, False)


def test_a_row_is_the_same_if_it_was_asked_the_same():
    done = Done()
    done.add(GOOD)
    assert done.is_same("a", CONTENT)
    assert not done.is_same("a", "0" * 16)
    assert not done.is_same("b", CONTENT)


def test_the_answer_that_counts_is_read_back_with_its_records(filled, opened):
    first, last = answered("1", id="a"), answered("2", "3", id="a")
    filled(
        *(
            line_of(each, "openai", "starter", 0)
            for each in (failed("b", 2), first, failed("a"), last, failed("a"))
        ),
        a_line("c", 3),
        a_line("d", 4, ok=False),
    )
    opened.close()
    done = opened(recalls=True).done
    assert done.outcome(last.row) == last
    bad = failed("d", 4, "naïve 𝄞")
    assert done.outcome(bad.row) == bad
    assert done.outcome(a_row(id="c", line=3)) is None
    opened.close()
    done = opened().done
    assert done.outcome(last.row) is None, "which takes time and room for each row"
    assert done.outcome(bad.row) == bad


def test_a_file_that_went_away_tells_nothing(filled, opened, output):
    filled(a_line("a", ok=False))
    done = opened().done
    output.unlink()
    assert done.outcome(a_row(id="a")) is None


def test_a_manifest_that_can_not_be_written_is_a_sentence(output):
    manifest_path(output).mkdir(parents=True)
    with pytest.raises(UsageError, match="can't be written") as caught:
        Ledger(output, {"a": 1}, "")
    assert caught.value.exit_code == 2
