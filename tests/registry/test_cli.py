"""`rsd models`: what is printed where, and what it exits with."""

import hashlib
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rsd_cli.cli.models import app
from rsd_cli.display.progress import transfer_progress
from rsd_cli.errors import ModelError, UsageError
from rsd_cli.registry import hub
from rsd_cli.registry.hub import HubFile, Listing
from rsd_cli.registry.store import Store
from tests.registry.gguf_bytes import File
from tests.registry.server import Site, serving

CONTENT = File().build()


@pytest.fixture
def declared(tmp_path):
    with serving(Site(CONTENT)) as site:
        (tmp_path / "work" / "models.yaml").write_text(f"""
models:
  little:
    size: {len(CONTENT)}
    sha256: {hashlib.sha256(CONTENT).hexdigest()}
    licence: "[red]\\e[31mMIT"
    sources: [{{kind: url, url: "{site.url}"}}]
  unchecked:
    unverified: hash not checked
trios:
  pair: {{draft: little, target: little, prm: confidence, threshold: 0.5, use_for: tests}}
""")
        yield site


def run(*arguments: str):
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "100", "TERM": "dumb"})
    if isinstance(result.exception, Exception):
        raise result.exception
    return result


def test_a_model_is_listed_pulled_verified_and_removed(declared, tmp_path):
    assert json.loads(run("list", "--json").stdout)["models"][0]["present"] == "no"
    pulled = run("pull", "pair", "confidence")
    assert "little" in pulled.stdout
    assert "downloading 100 %" in pulled.stderr
    path = run("path", "little", "--offline").stdout.strip()
    assert path.startswith(str(tmp_path / "home" / "models" / "little-"))
    assert json.loads(run("path", "little", "--json").stdout)["files"][0]["path"] == path
    listed = json.loads(run("ls", "--json").stdout)
    assert listed["models"][0]["present"] == "yes"
    assert listed["trios"][0]["missing"] == []
    assert "ok" in run("verify").stdout
    with pytest.raises(UsageError, match="confirmation"):
        run("rm", "little")
    assert json.loads(run("rm", "little", "--yes", "--json").stdout)["freed"] == len(CONTENT)
    with pytest.raises(ModelError, match="Nothing of little"):
        run("rm", "little", "--yes")


def test_a_damaged_file_fails_the_verification(declared, tmp_path):
    path = run("pull", "little", "--quiet").stdout.split()[-1]
    with open(path, "r+b") as file:  # noqa: PTH123
        file.seek(-1, 2)
        file.write(b"!")
    with pytest.raises(ModelError, match="Damaged"):
        run("verify", "little")
    with pytest.raises(ModelError, match="Damaged or missing: unchecked"):
        run("verify", "unchecked")


def hints_of_verify(name):
    """The commands that a damaged or missing file of this name is to be mended with."""
    with pytest.raises(ModelError, match="Damaged or missing") as refused:
        run("verify", name)
    return re.findall(r"rsd models (\w+) ([^\s,`]*[^\s,`.])", refused.value.hint)


@pytest.mark.parametrize("state", ["missing", "damaged", "damaged elsewhere"])
def test_what_verify_says_mends_the_file(state, declared, monkeypatch, tmp_path):
    path = Path(run("path", "little", "--quiet").stdout.strip())
    if state == "damaged elsewhere":  # as in the hub's cache: nothing that rm would delete
        path = path.rename(tmp_path / "little.gguf")
        monkeypatch.setattr(Store, "_places", lambda store, entry: [store._shelf.file(entry), path])
    path.write_bytes(CONTENT[:-1] + b"!")
    if state == "missing":
        path.unlink()
    hints = hints_of_verify("pair")
    assert hints == [("rm", "little")] * (state == "damaged") + [("pull", "little")]
    for command, name in hints:
        run(command, name, *["--yes"] * (command == "rm"))
    assert "ok" in run("verify", "pair").stdout


def test_a_damaged_file_of_the_user_is_theirs_to_replace(tmp_path):
    mine = tmp_path / "work" / "mine.gguf"
    mine.write_bytes(CONTENT)
    size, sha256 = len(CONTENT), hashlib.sha256(b"other").hexdigest()
    source = f"[{{kind: path, path: {mine}}}]"
    (tmp_path / "work" / "models.yaml").write_text(
        f"models: {{own: {{size: {size}, sha256: {sha256}, sources: {source}}}}}\n"
    )
    assert hints_of_verify("own") == [("show", "own")]
    mine.write_bytes(b"no model")
    for command, name in hints_of_verify("./mine.gguf"):
        assert (command, name) == ("show", "./mine.gguf")
        assert str(mine.name) in run(command, name).stdout


def test_show_knows_models_reward_models_and_trios(declared):
    assert "unverified" in run("show", "unchecked").stdout
    assert json.loads(run("show", "little", "--json").stdout)["sources"][0]["kind"] == "url"
    assert json.loads(run("show", "confidence", "--json").stdout)["family"] == "confidence"
    assert "missing" in run("show", "pair").stdout
    with pytest.raises(UsageError, match="No model, reward model or trio is called 'litle'"):
        run("show", "litle")


@pytest.fixture
def distant(tmp_path):
    """A trio of files that nobody declares, but for its target, and that the hub alone knows."""
    (tmp_path / "work" / "models.yaml").write_text("""
models:
  mine: {unverified: hash not checked, size: 7, sources: [{kind: path, path: /nowhere/mine.gguf}]}
prms:
  far-judge: {family: judge, model: "hf://nobody/nothing:Q4_K_M", threshold: 0.5, calibrated_on: nothing}
trios:
  far: {draft: "hf://nobody/nothing:Q4_K_M", target: mine, prm: far-judge, threshold: 0.5, use_for: tests}
""")


def missing_of_far():
    listed = json.loads(run("list", "--json").stdout)["trios"]
    far = next(trio for trio in listed if trio["name"] == "far")
    return far["missing"], far["missing_bytes"]


def test_what_only_the_hub_could_tell_is_missing(distant):
    assert missing_of_far() == (["hf://nobody/nothing:Q4_K_M", "mine"], None)
    assert "hf://nobody/nothing:Q4_K_M" in run("list").stdout
    for more in ([], ["--offline"]):
        assert json.loads(run("show", "far", "--json", *more).stdout)["missing"] == missing_of_far()[0]


def test_of_a_split_model_all_files_are_missing(distant, monkeypatch):
    files = [HubFile(f"m-Q4_K_M-0000{i}-of-00002.gguf", 100 * i) for i in (1, 2)]
    monkeypatch.setattr(hub, "list_files", lambda *_, **__: Listing("ab" * 20, files))
    assert missing_of_far() == (["m-Q4_K_M", "mine"], 307)


@pytest.mark.parametrize("width", ["40", "60", "160"])
def test_the_list_fits_and_shows_text_of_files_as_data(declared, width):
    shown = CliRunner().invoke(app, ["list"], env={"COLUMNS": width, "TERM": "dumb"}).stdout
    assert max(len(line) for line in shown.splitlines()) <= int(width)
    assert "\x1b" not in shown
    assert "[red]" in shown


def test_what_needs_no_file_says_so(declared):
    assert "needs no file" in run("pull", "confidence").stdout
    with pytest.raises(ModelError, match="has no source: hash not checked"):
        run("pull", "unchecked")


def test_progress_off_a_terminal_is_a_few_plain_lines():
    stream = io.StringIO()
    with transfer_progress(Console(file=stream)) as progress:
        for done in range(0, 1_000_001, 1000):
            progress("m\x1b", "downloading", done, 1_000_000)
    assert stream.getvalue().splitlines() == [
        "m\\x1b: downloading 0 % (0 of 1 MB)",
        "m\\x1b: downloading 100 % (1 of 1 MB)",
    ]


@pytest.mark.parametrize("width", [40, 200])
def test_progress_on_a_terminal_is_one_bar_that_goes_away(width):
    stream = io.StringIO()
    with transfer_progress(Console(file=stream, force_terminal=True, width=width)) as progress:
        progress("m", "downloading", 1, None)
        progress("m", "verifying", 5, 10)
    assert "verifying" in stream.getvalue()
