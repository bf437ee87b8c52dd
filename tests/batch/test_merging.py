"""Shards become one file: every row once, in the order of the input."""

import json

import pytest

from rsd_cli.batch.answers import line_of
from rsd_cli.batch.ledger import Ledger, manifest_path, read_manifest
from rsd_cli.batch.merging import Merged, read_parts, write_merged_manifest
from rsd_cli.errors import OutputError, UsageError
from tests.batch.made import answered, failed

SETTINGS = {"trio": "starter", "threshold": 0.7, "shard": "1/1"}


@pytest.fixture
def shard(tmp_path):
    """shard("1/2", rows, **settings): a file as rsd batch writes it; a row is its line, negative for an error."""

    def write(part, lines, **settings):
        path = tmp_path / f"{len(list(tmp_path.glob('*.jsonl')))}.jsonl"
        ledger = Ledger(path, {**SETTINGS, "shard": part, **settings}, "/in.jsonl")
        for line in lines:
            name, number = f"q{abs(line)}", abs(line)
            outcome = (
                answered("1", id=name, line=number) if line > 0 else failed(name, number, "naïve 𝄞\u2028")
            )
            ledger.append(line_of(outcome, "plain", "starter", 0))
        ledger.close()
        return path

    return write


def merged(*paths):
    whole = Merged()
    for path in paths:
        whole.add(path)
    return whole


def lines_of(path):
    assert path.read_bytes().endswith(b"\n")
    return [json.loads(line)["line"] for line in path.read_bytes().split(b"\n")[:-1]]


def test_rows_come_in_the_order_of_the_input(shard, tmp_path):
    paths = [shard("2/3", [11, 2, -5]), shard("1/3", [10, 4, 1]), shard("3/3", [3])]
    assert [(part.index, part.count) for part in read_parts(paths)] == [(2, 3), (1, 3), (3, 3)]
    whole = merged(*paths)
    assert (len(whole.places), whole.n_failed) == (7, 1)
    whole.write(tmp_path / "whole")
    assert lines_of(tmp_path / "whole") == [1, 2, 3, 4, 5, 10, 11]
    kept = {line for path in paths for line in path.read_bytes().split(b"\n")}
    assert set((tmp_path / "whole").read_bytes().split(b"\n")) == kept


def test_a_row_in_two_files_is_refused(shard):
    one, other = shard("1/2", [1, 3]), shard("2/2", [2, 3])
    with pytest.raises(OutputError, match="'q3'") as caught:
        merged(one, other)
    assert str(one) in caught.value.message
    assert str(other) in caught.value.message
    with pytest.raises(OutputError, match="'q1'"):
        merged(one, one)


@pytest.mark.parametrize(
    ("there", "missing"), [(["1/3", "3/3"], "2/3"), (["2/2"], "1/2"), (["1/2", "1/2"], "2/2")]
)
def test_a_missing_shard_is_named(there, missing, shard):
    with pytest.raises(OutputError, match=f"Shard {missing} is missing") as caught:
        read_parts([shard(part, []) for part in there])
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("other", "says"),
    [({"threshold": 0.5}, "threshold was 0.7, now 0.5"), ({"seed": 1}, "seed was null, now 1")],
)
def test_other_settings_are_refused(other, says, shard):
    with pytest.raises(OutputError, match=says):
        read_parts([shard("1/2", [1]), shard("2/2", [2], **other)])


def test_shards_of_different_wholes_are_refused(shard):
    with pytest.raises(OutputError, match=r"one of 2 shards.*of 3"):
        read_parts([shard("1/2", [1]), shard("2/3", [2])])


@pytest.mark.parametrize("manifest", [None, b"{", b"[]", b'{"settings": 5}'])
def test_a_file_without_a_manifest_is_refused(manifest, shard):
    path = shard("1/1", [1])
    manifest_path(path).unlink()
    if manifest is not None:
        manifest_path(path).write_bytes(manifest)
    with pytest.raises(OutputError, match="no manifest"):
        read_parts([path])


@pytest.mark.parametrize("named", ["foo", "", "1/", "0/2", "-1/2", "1/2/3", None, ["1/2"]])
def test_a_shard_that_is_none_is_refused(named, shard):
    path = shard("1/1", [1])
    manifest = json.loads(manifest_path(path).read_bytes())
    manifest["settings"]["shard"] = named
    manifest_path(path).write_text(json.dumps(manifest))
    with pytest.raises(OutputError, match="which is none") as caught:
        read_parts([path])
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("lines", "failed_rows"),
    [([-1, 2, 1], 0), ([1, 2, -1], 0), ([-1, 2, -1], 1), ([-1, 1, -1, -2, 2], 0), ([-2, -1], 2)],
)
def test_retried_errors_are_sorted_out(lines, failed_rows, shard, tmp_path):
    whole = merged(shard("1/1", lines))
    assert whole.n_failed == failed_rows
    whole.write(tmp_path / "whole")
    assert lines_of(tmp_path / "whole") == [1, 2]


def test_records_of_no_row_of_the_input_are_left_out(shard, tmp_path):
    whole = merged(shard("1/1", [3, -2, 1, -1, -4]))
    assert whole.leave_out_all_but({"q1", "q3", "q5"}) == ["q2", "q4"]
    assert whole.n_failed == 0
    whole.write(tmp_path / "whole")
    assert lines_of(tmp_path / "whole") == [1, 3]


def test_the_whole_is_a_file_that_can_be_continued(shard, tmp_path):
    paths = [shard("1/2", [3, 1]), shard("2/2", [-2])]
    parts = read_parts(paths)
    output = tmp_path / "whole"
    merged(*paths).write(output)
    write_merged_manifest(output, parts[0])
    assert read_manifest(output)["input"] == "/in.jsonl"
    ledger = Ledger(output, SETTINGS, "/in.jsonl")
    assert (ledger.torn, ledger.done.n_rows, ledger.done.failed("q2")) == (0, 3, True)
    ledger.append(line_of(answered("1", id="q2", line=2), "plain", "starter", 0))
    ledger.close()
    assert merged(output).n_failed == 0


def test_a_last_line_without_its_end_gets_one(shard, tmp_path):
    path = shard("1/1", [2, 1])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    merged(path).write(tmp_path / "whole")
    assert lines_of(tmp_path / "whole") == [1, 2]


def test_a_file_that_is_gone_meanwhile_is_named_and_not_the_whole(shard, tmp_path):
    paths = [shard("1/2", [1]), shard("2/2", [2])]
    whole, output = merged(*paths), tmp_path / "whole"
    paths[1].unlink()
    with pytest.raises(UsageError, match="can't be read: No such file") as caught:
        whole.write(output)
    assert caught.value.message.startswith(str(paths[1]))
    assert not list(tmp_path.glob("whole*"))


def test_a_torn_file_is_refused_by_its_place(shard):
    path = shard("1/1", [1, 2])
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(OutputError, match=f"byte {len(whole) // 2:,} ") as caught:
        merged(path)
    assert str(path) in caught.value.message


def test_nothing_merges_to_nothing(shard, tmp_path):
    merged(shard("1/1", [])).write(tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == b""
