"""Checkpoints that are converted here: fetched file by file, continued, and found in the hub's cache."""

import shutil

import pytest

from rsd_cli.errors import ModelError, ResourceError
from rsd_cli.registry import hub, ranged
from rsd_cli.registry.entries import ConvertSource
from rsd_cli.registry.hub import HubFile, Listing
from rsd_cli.registry.part import SourceError, silent
from rsd_cli.registry.ranged import Address
from rsd_cli.registry.weights import fetch_weights
from tests.registry.server import Site, serving
from tests.rewards.checkpoint_files import write

CONTENT = bytes(range(256)) * 4000
COMMIT = "ab" * 20
NAMES = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
]
SOURCE = ConvertSource(kind="convert", repo="some/prm", base="base")


@pytest.fixture
def site(monkeypatch, tmp_path):
    """Every file has the same content; the hub's cache is empty."""
    monkeypatch.setattr(ranged, "PAUSE", 0.01)
    names = [*NAMES, "README.md", "pytorch_model.bin", "onnx/model.safetensors"]
    listing = Listing(COMMIT, [HubFile(name, len(CONTENT)) for name in names])
    monkeypatch.setattr(hub, "list_files", lambda *_, **__: listing)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with serving(Site(CONTENT)) as site:
        monkeypatch.setattr(hub, "address", lambda source: Address(site.url, origin=str(source)))
        yield site


def test_the_weights_and_their_index_are_fetched_and_nothing_else(site, tmp_path):
    told: list[tuple[object, ...]] = []
    found = fetch_weights(SOURCE, tmp_path / "folder", lambda *call: told.append(call))
    assert sorted(path.name for path in found.iterdir()) == sorted(NAMES)
    assert {path.read_bytes() for path in found.iterdir()} == {CONTENT}
    assert told[-1] == (NAMES[-1], "downloading", len(CONTENT), len(CONTENT))
    assert len(site.ranges) == 3


def test_an_interrupted_fetch_goes_on(site, tmp_path):
    site.cut_after = 300_000
    with pytest.raises(SourceError, match=r"some/prm@abab.* model-00001.*connection ended"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranged, "RETRIES", 0)
            fetch_weights(SOURCE, tmp_path / "folder", silent)
    site.ranges.clear()
    found = fetch_weights(SOURCE, tmp_path / "folder", silent)
    assert site.ranges == ["bytes=300000-", None, None]
    site.ranges.clear()
    assert fetch_weights(SOURCE, tmp_path / "folder", silent) == found
    assert site.ranges == []


def test_another_commit_is_another_checkpoint(site, tmp_path):
    older = tmp_path / "folder" / ("cd" * 20)
    older.mkdir(parents=True)
    (older / NAMES[0]).write_bytes(b"older")
    (older / f"{NAMES[1]}.part").write_bytes(b"older")
    found = fetch_weights(SOURCE, tmp_path / "folder", silent)
    assert {path.read_bytes() for path in found.iterdir()} == {CONTENT}


def test_what_the_hubs_cache_has_is_used_there(site, tmp_path):
    snapshot = tmp_path / "hub" / "models--some--prm" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in NAMES[:2]:
        (snapshot / name).write_bytes(CONTENT)
    assert fetch_weights(SOURCE, tmp_path / "folder", silent) != snapshot  # the index is missing
    (snapshot / NAMES[2]).write_bytes(CONTENT)
    site.ranges.clear()
    assert fetch_weights(SOURCE, tmp_path / "folder", silent) == snapshot
    assert site.ranges == []


def test_without_network_the_hubs_cache_is_enough_if_it_has_them_all(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--some--prm"
    snapshot = repository / "snapshots" / COMMIT
    write(snapshot, {"README.md": CONTENT})
    write(repository / "refs", {SOURCE.revision: COMMIT.encode()})
    with pytest.raises(ModelError, match="not in the local cache"):
        fetch_weights(SOURCE, tmp_path / "folder", silent)
    write(snapshot, {NAMES[0]: CONTENT, NAMES[2]: CONTENT})
    with pytest.raises(SourceError, match="of 2 files with the weights of some/prm only 1 are here"):
        fetch_weights(SOURCE, tmp_path / "folder", silent)
    write(snapshot, {NAMES[1]: CONTENT})
    assert fetch_weights(SOURCE, tmp_path / "folder", silent) == snapshot
    with pytest.raises(ModelError, match="not in the local cache"):
        hub.list_files("some/prm", None, offline=True)  # it holds no GGUF


def test_a_disk_too_small_for_all_of_it_is_refused_first(site, tmp_path, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * len(CONTENT)))
    with pytest.raises(ResourceError, match="some/prm needs"):
        fetch_weights(SOURCE, tmp_path / "folder", silent)
    assert site.ranges == []


def test_a_disk_too_small_for_what_is_made_of_it_is_refused_as_well(site, tmp_path, monkeypatch):
    usage, needed = shutil.disk_usage("/"), 3 * len(CONTENT) + 1000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(ResourceError, match="some/prm needs"):
        fetch_weights(SOURCE, tmp_path / "folder", silent, 1000)
    assert site.ranges == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    directory = fetch_weights(SOURCE, tmp_path / "folder", silent, 1000)
    cached = tmp_path / "hub" / "models--some--prm" / "snapshots" / COMMIT
    shutil.copytree(directory, cached)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=999))
    with pytest.raises(ResourceError, match="some/prm needs"):
        fetch_weights(SOURCE, tmp_path / "other", silent, 1000)
