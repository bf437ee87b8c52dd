"""Downloads from a server on this machine: resumed, verified, never half done (group G of the faults)."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from rsd_cli.errors import ModelError, OutputError, ResourceError, UsageError
from rsd_cli.registry import hub, part, ranged, references
from rsd_cli.registry.entries import ModelEntry
from rsd_cli.registry.hub import Listing
from rsd_cli.registry.ranged import Address
from rsd_cli.registry.store import Store
from tests.registry.gguf_bytes import File, text
from tests.registry.server import Site, serving

CONTENT = File().with_values(x__filler=text("x" * 3_000_000)).build()
HASH = hashlib.sha256(CONTENT).hexdigest()
OTHER = "00" * 32


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(ranged, "PAUSE", 0.01)


@pytest.fixture
def site():
    with serving(Site(CONTENT)) as site:
        yield site


def entry(*urls: str, sha256: str = HASH, size: int = len(CONTENT), **more: object) -> ModelEntry:
    sources = [{"kind": "url", "url": url} for url in urls]
    return ModelEntry.model_validate(
        {"name": "m", "size": size, "sha256": sha256, "sources": sources, **more}
    )


def files(store: Store) -> list[str]:
    return sorted(
        path.name for path in store.directory.iterdir() if not path.name.startswith(("verdicts", "."))
    )


def refused(store: Store, wanted: ModelEntry) -> ModelError:
    with pytest.raises(ModelError) as caught:
        store.fetch(wanted)
    assert caught.value.exit_code == 3
    assert store.locate(wanted) is None
    return caught.value


def test_a_file_is_fetched_once_and_hashed_once(site, monkeypatch):
    store, wanted, told = Store(), entry(site.url), []
    path = store.fetch(wanted, lambda *call: told.append(call))
    assert path.read_bytes() == CONTENT
    assert files(store) == [f"m-{HASH[:12]}.gguf"]
    assert told[-1] == ("m", "downloading", len(CONTENT), len(CONTENT))
    monkeypatch.setattr("rsd_cli.registry.store.hash_file", None)
    assert Store(offline=True).fetch(wanted) == path
    assert len(site.ranges) == 1


@pytest.mark.parametrize(("code", "says"), [(404, "404"), (401, "HF_TOKEN"), (403, "licence"), (400, "400")])
def test_a_refusal_is_named_and_not_repeated(site, code, says):
    site.answers = [code]
    store = Store()
    assert says in refused(store, entry(site.url)).message
    assert len(site.ranges) == 1
    assert files(store) == []


def test_a_passing_failure_is_retried_within_bounds(site):
    site.answers = [500, 429]
    assert Store().fetch(entry(site.url)).read_bytes() == CONTENT
    site.answers = [503] * 9
    assert "HTTP 503" in refused(Store(), entry(site.url, sha256=OTHER)).message
    assert len(site.answers) == 6


def test_a_cut_connection_is_continued(site):
    site.cut_after = 1_000_000
    assert Store().fetch(entry(site.url)).read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=1000000-"]


def test_a_connection_that_breaks_often_is_continued_as_long_as_something_arrives(site):
    site.cut_after, site.cuts = 500_000, 5
    phases = set()
    path = Store().fetch(entry(site.url), lambda _name, phase, *_: phases.add(phase))
    assert path.read_bytes() == CONTENT
    assert len(site.ranges) == 6
    assert phases == {"downloading"}  # what has just been written is not read again


def test_a_server_that_always_breaks_at_the_same_place_is_given_up(site):
    site.cut_after, site.cuts, site.ignore_range = 500_000, 99, True
    assert "connection ended after 500000" in refused(Store(), entry(site.url)).message
    assert len(site.ranges) == 3


def test_a_token_stays_with_its_host(site):
    old = site.url.replace("m.gguf", "old.gguf")
    with serving(Site(CONTENT)) as other:
        site.moved = {"/old.gguf": "/older.gguf", "/older.gguf": other.url}
        other.moved = {"/m.gguf": "/final.gguf"}
        wanted = entry(old)
        part_file = part.Part(wanted, Path("m.part").absolute(), part.silent)
        ranged.download(Address(old, {"Authorization": "Bearer hf_secret"}), part_file)
        part_file.finish()
        assert site.tokens == ["Bearer hf_secret"] * 2
        assert other.tokens == [None, None]


def test_a_part_of_somebody_else_is_no_fault_of_the_network(site, monkeypatch):
    store, wanted = Store(), entry(site.url)
    left(store, wanted, CONTENT[:1000])
    real = Path.touch

    def touch(self, *arguments, **more):
        if self.suffix == ".part":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        real(self, *arguments, **more)

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(OutputError, match=r"Cannot write .*\.part: Permission denied\."):
        store.fetch(wanted)
    assert len(site.ranges) == 1
    assert store.partial(wanted) == 1000


def test_a_stalled_server_is_given_up(site, monkeypatch):
    monkeypatch.setattr(ranged, "STALL", 0.5)
    site.cut_after, site.stall = 1000, 12
    started = time.monotonic()
    assert Store().fetch(entry(site.url)).read_bytes() == CONTENT
    assert time.monotonic() - started < 11


@pytest.mark.parametrize("ignore_range", [False, True])
def test_an_earlier_run_is_continued_or_started_over(site, ignore_range):
    store, wanted = Store(), entry(site.url)
    store.directory.mkdir(parents=True)
    (store.directory / (wanted.file_name + ".part")).write_bytes(CONTENT[:2_000_000])
    assert store.partial(wanted) == 2_000_000
    site.ignore_range = ignore_range
    assert store.fetch(wanted).read_bytes() == CONTENT
    assert site.ranges == ["bytes=2000000-"]


COMMIT = "ab" * 20
UNPINNED: dict[str, Any] = {"sha256": None, "unverified": "a test"}


def from_the_hub(revision: str, **more: object) -> ModelEntry:
    source = {"kind": "hf", "repo": "some/repo", "revision": revision, "file": "m.gguf"}
    return ModelEntry.model_validate({"name": "m", "unverified": "a test", "sources": [source], **more})


@dataclass
class Branch:
    """The commit that the hub names, and the revisions that were downloaded."""

    commit: str | None = COMMIT
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def branch(site, monkeypatch):
    branch = Branch()

    def list_files(*_, **__):
        if branch.commit is None:
            raise ModelError("Cannot reach the hub.")
        return Listing(branch.commit, [])

    def hf_hub_url(_repo, _file, *, revision):
        branch.asked.append(revision)
        return site.url

    monkeypatch.setattr(hub, "list_files", list_files)
    monkeypatch.setattr("huggingface_hub.hf_hub_url", hf_hub_url)
    return branch


@pytest.fixture
def hub_site(site, branch, monkeypatch):
    """The site in the hub's place."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return site


def left(store: Store, wanted: ModelEntry, content: bytes) -> None:
    """An earlier run was interrupted."""
    store.directory.mkdir(parents=True)
    (store.directory / (wanted.file_name + ".part")).write_bytes(content)


def interrupted(site: Site, store: Store, wanted: ModelEntry) -> None:
    """An earlier run got 2,000,000 bytes."""
    site.cut_after = 2_000_000
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ModelError, match="connection ended"):
        patch.setattr(ranged, "RETRIES", 0)
        store.fetch(wanted)
    site.ranges.clear()


OLDER = b"another version's " * 1000


@pytest.mark.parametrize("answers", [[], [503]])
def test_a_branch_may_have_moved_so_an_earlier_run_is_not_continued(hub_site, answers):
    hub_site.answers = answers
    store, wanted = Store(), from_the_hub("main", size=len(CONTENT))
    left(store, wanted, OLDER)
    assert store.fetch(wanted).read_bytes() == CONTENT


@pytest.mark.parametrize(("revision", "sha256"), [(COMMIT, None), ("main", None), ("main", HASH)])
def test_a_commit_and_a_hash_are_continued(hub_site, branch, revision, sha256):
    store, wanted = Store(), from_the_hub(revision, sha256=sha256, size=len(CONTENT))
    interrupted(hub_site, store, wanted)
    assert store.fetch(wanted).read_bytes() == CONTENT
    assert hub_site.ranges == ["bytes=2000000-"]
    assert branch.asked == ["main" if sha256 else COMMIT] * 2
    assert files(store) == [wanted.file_name]


@pytest.mark.parametrize("commit", ["cd" * 20, None])
def test_a_branch_that_has_moved_or_that_nobody_knows_of_is_started_over(hub_site, branch, commit):
    store, wanted = Store(), from_the_hub("main", size=len(CONTENT))
    interrupted(hub_site, store, wanted)
    branch.commit = commit
    assert store.fetch(wanted).read_bytes() == CONTENT
    assert hub_site.ranges == [None]
    assert branch.asked == [COMMIT, commit or "main"]


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "path", "path": "absent.gguf"},
        {"kind": "convert", "repo": "some/prm", "base": "base"},
        {"kind": "url", "url": "http://127.0.0.1:9/m"},
    ],
)
def test_another_source_does_not_keep_a_commit_from_being_continued(hub_site, other):
    wanted = from_the_hub(COMMIT, size=len(CONTENT))
    both = ModelEntry.model_validate(
        {
            **wanted.model_dump(exclude={"shard", "further_shards"}),
            "sources": [*wanted.model_dump()["sources"], other],
        }
    )
    store = Store()
    interrupted(hub_site, store, both)
    assert store.fetch(both).read_bytes() == CONTENT
    assert hub_site.ranges == ["bytes=2000000-"]


def test_a_commit_does_not_continue_what_may_be_of_another_source(hub_site):
    wanted = from_the_hub(COMMIT)
    both = wanted.model_copy(update={"sources": [*wanted.sources, *entry("http://127.0.0.1:9/m").sources]})
    store = Store()
    left(store, both, OLDER)
    assert store.fetch(both).read_bytes() == CONTENT


def test_an_unpinned_address_is_started_over_but_within_a_run_continued(site):
    site.answers, site.cut_after = [503], None
    store, wanted = Store(), entry(site.url, **UNPINNED)
    left(store, wanted, OLDER)
    assert store.fetch(wanted).read_bytes() == CONTENT
    assert site.ranges == [None, None]
    store.remove(wanted)
    site.ranges.clear()
    site.cut_after = 1_000_000
    assert store.fetch(wanted).read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=1000000-"]


def test_a_wrong_file_never_gets_the_name(site):
    site.content = CONTENT[:-1] + b"!"
    store = Store()
    assert "sha256" in refused(store, entry(site.url)).message
    assert files(store) == []


def test_a_poisoned_beginning_is_thrown_away(site):
    store, wanted = Store(), entry(site.url, site.url)
    store.directory.mkdir(parents=True)
    (store.directory / (wanted.file_name + ".part")).write_bytes(b"evil")
    assert store.fetch(wanted).read_bytes() == CONTENT


def test_a_wrong_size_is_seen_before_the_download(site):
    assert "bytes instead of 5" in refused(Store(), entry(site.url, size=5)).message


def test_a_file_that_is_no_model_is_refused(site):
    site.content = b"<html>" + bytes(100)
    wanted = entry(site.url, sha256=hashlib.sha256(site.content).hexdigest(), size=106)
    assert "HTML page" in refused(Store(), wanted).message


def test_every_source_is_tried_and_named(site):
    nowhere = "http://127.0.0.1:9/m.gguf"
    assert Store().fetch(entry(nowhere, site.url)).read_bytes() == CONTENT
    site.answers = [404]
    error = refused(Store(), entry(nowhere, site.url, sha256=OTHER))
    assert error.message.count("url: ") == 2
    assert "Connection refused" in error.message
    assert "rsd models pull" in error.hint


def test_offline_uses_no_network(site):
    error = refused(Store(offline=True), entry(site.url))
    assert "not in the cache" in error.message
    assert site.ranges == []


def test_a_small_disk_is_refused_first(site, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(CONTENT)))
    with pytest.raises(ResourceError, match="are free"):
        Store().fetch(entry(site.url))
    assert site.ranges == []


def test_a_disk_that_fills_up_gets_its_space_back(site, monkeypatch):
    class FullDisk:
        def __init__(self, file: BinaryIO) -> None:
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, chunk):
            if self.file.tell() > 500_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(chunk)

    start_at = part.Part.start_at

    def start_on_full_disk(self, *arguments):
        start_at(self, *arguments)
        self._file = FullDisk(self._file)

    monkeypatch.setattr(part.Part, "start_at", start_on_full_disk)
    store = Store()
    with pytest.raises(ResourceError, match="No space left") as caught:
        store.fetch(entry(site.url))
    assert caught.value.exit_code == 4
    assert files(store) == []


def test_a_store_that_cannot_be_written_is_a_usage_error(site, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="Cannot write"):
        Store(directory=tmp_path / "file" / "store").fetch(entry(site.url))


def test_two_processes_fetch_it_once(site, tmp_path):
    site.stall = 0.3
    code = (
        "import sys; from rsd_cli.registry.store import Store;"
        "from rsd_cli.registry.entries import ModelEntry;"
        "print(Store().fetch(ModelEntry.model_validate_json(sys.argv[1])))"
    )
    wanted = entry(site.url).model_dump_json(exclude={"shard", "further_shards"})
    command = [sys.executable, "-c", code, wanted]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate(timeout=60)[0] for process in both}) == 1
    assert [process.returncode for process in both] == [0, 0]
    assert site.ranges == [None]


def test_the_lock_of_a_killed_process_is_free(site):
    code = (
        "import sys, time; from rsd_cli.registry.store import Store; from rsd_cli.registry.shelf import Shelf;"
        "from rsd_cli.registry.entries import ModelEntry; from rsd_cli.registry.part import silent;"
        "lock = Shelf(Store().directory).lock(ModelEntry.model_validate_json(sys.argv[1]), silent);"
        "print('held', flush=True);"
        "time.sleep(60)"
    )
    wanted = entry(site.url)
    arguments = [sys.executable, "-c", code, wanted.model_dump_json(exclude={"shard", "further_shards"})]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGKILL)
    assert Store().fetch(wanted).read_bytes() == CONTENT


def path_entry(path: Path) -> ModelEntry:
    return entry(sources=[{"kind": "path", "path": str(path)}])


def test_a_path_source_is_used_in_place_and_verified(tmp_path):
    file = tmp_path / "m.gguf"
    file.write_bytes(CONTENT)
    store = Store(offline=True)
    assert store.fetch(path_entry(file)) == file
    assert not store.owns(path_entry(file))
    file.write_bytes(CONTENT[:-1] + b"!")
    assert "sha256" in refused(store, path_entry(file)).message
    assert Store(verify=False).fetch(path_entry(file)) == file
    file.write_bytes(CONTENT[:-1])
    assert "beyond the file" in refused(store, path_entry(file)).message


@pytest.fixture
def forbidden(tmp_path, monkeypatch):
    """A file in a directory that one may not look into, whoever runs the tests."""
    path = tmp_path / "forbidden" / "m.gguf"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    real = os.stat

    def stat(target, *arguments, **more):
        if str(target) == str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        return real(target, *arguments, **more)

    monkeypatch.setattr(os, "stat", stat)
    return path


def test_a_path_that_may_not_be_looked_at_is_refused_with_the_reason(forbidden):
    assert refused(Store(), path_entry(forbidden)).message == f"{forbidden} can't be used: Permission denied."
    undeclared = references.resolve(str(forbidden))
    assert "Permission denied" in refused(Store(), undeclared).message
    assert Store().verify(undeclared) is None


def test_a_path_that_may_not_be_looked_at_keeps_no_other_source_away(site, forbidden):
    wanted = entry(sources=[{"kind": "path", "path": str(forbidden)}, {"kind": "url", "url": site.url}])
    assert Store().find(wanted) is None
    assert Store().fetch(wanted).read_bytes() == CONTENT


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    long = "x" * 300
    assert not references.looks_like_one(long)
    wanted = references.resolve(f"{tmp_path}/{long}.gguf")
    store = Store()
    assert (store.find(wanted), store.partial(wanted), store.owns(wanted)) == (None, 0, False)
    assert "File name too long" in refused(store, wanted).message
    with pytest.raises(ModelError, match="not in the local cache"):
        references.resolve(f"hf://a/{long}", offline=True)


def test_a_file_that_breaks_while_it_is_read_is_no_sound_one(site, monkeypatch):
    wanted = entry(site.url)
    path = Store().fetch(wanted)

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("rsd_cli.registry.store.hash_file", broken)
    verified = Store().verify(wanted)
    assert verified is not None
    assert (verified.ok, verified.problem) == (False, "it can't be read: Input/output error")
    os.utime(path, ns=(0, 0))
    assert Store(offline=True).locate(wanted) is None


def test_a_damaged_copy_is_found_and_replaced(site):
    store, wanted = Store(), entry(site.url)
    path = store.fetch(wanted)
    before = path.stat()
    path.write_bytes(CONTENT[:-1] + b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    verified = store.verify(wanted)
    assert verified is not None
    assert not verified.ok
    assert store.fetch(wanted).read_bytes() == CONTENT
    again = store.verify(wanted)
    assert again is not None
    assert again.ok


def test_removing_frees_only_our_own_files(site):
    store, wanted = Store(), entry(site.url)
    store.fetch(wanted)
    assert store.remove(wanted) == len(CONTENT)
    assert files(store) == []
    assert store.locate(wanted) is None


def test_all_that_interrupted_work_left_can_be_removed():
    source = {"kind": "convert", "repo": "some/prm", "base": "base"}
    wanted = ModelEntry.model_validate({"name": "m", "unverified": "made here", "sources": [source]})
    store = Store()
    assert not store.owns(wanted)
    name = wanted.file_name
    left = ("f16.part", "part.json", "part.wheels/w.whl", "checkpoint/abc/model.safetensors.part")
    for number, ending in enumerate(left):
        path = store.directory / f"{name}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(100))
        assert store.owns(wanted)
        assert store.partial(wanted) == (100 if number == 3 else 0)
    (store.directory / f"other-{name}.part").touch()
    assert store.remove(wanted) == 400
    assert files(store) == [f"other-{name}.part"]
