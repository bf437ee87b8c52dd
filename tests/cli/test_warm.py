"""What a run remembers of its trio must never outlive a change."""

from __future__ import annotations

import json
import os

import pytest

from rsd_cli.cli import setup
from tests.cli.command import declared, trio

QUESTION = "What is 1 + 2?"


def asked(rsd, *arguments):
    done = rsd("ask", QUESTION, "-n", "10", "--json", *arguments)
    assert done.code == 0, done.err
    return json.loads(done.out)


def remembered(rsd):
    return rsd.home / "rsd_home" / "models" / "trios.json"


@pytest.fixture
def copies(rsd, tiny):
    """A registry of two files that the test may change."""
    files = {}
    for name, seed in (("first", 1), ("second", 2)):
        files[name] = rsd.home / f"{name}.gguf"
        files[name].write_bytes(tiny(seed=seed).read_bytes())
    rsd.write_models(declared(files, {"starter": trio("first", "second")}))
    return files


def test_a_changed_registry_counts_at_once(rsd, copies):
    before = asked(rsd)
    rsd.write_models(declared(copies, {"starter": trio("second", "first", threshold=0.75)}))
    after = asked(rsd)
    assert (before["models"]["draft"]["name"], after["models"]["draft"]["name"]) == ("first", "second")
    assert after["settings"]["threshold"] == 0.75


def test_a_file_that_went_away_is_missed(rsd, copies):
    asked(rsd)
    copies["first"].unlink()
    assert rsd("ask", QUESTION).code == 3


def test_another_registry_by_flag_wins(rsd, copies):
    asked(rsd)
    other = rsd.home / "other.yaml"
    other.write_text(declared(copies, {"starter": trio("second", "second", threshold=0.5)}))
    assert asked(rsd, "--models", str(other))["settings"]["threshold"] == 0.5
    assert asked(rsd)["settings"]["threshold"] == 0.2


def test_a_new_registry_in_the_working_directory_wins(rsd, copies):
    rsd.env = lambda **more: type(rsd).env(rsd, **{"RSD_MODELS": ""} | more)
    assert asked(rsd)["settings"]["threshold"] == 0.2
    (rsd.home / "models.yaml").write_text(
        declared(copies, {"starter": trio("first", "first", threshold=0.4)})
    )
    assert asked(rsd)["settings"]["threshold"] == 0.4


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe"])
def test_a_damaged_memory_only_costs_time(content, rsd, copies):
    asked(rsd)
    assert remembered(rsd).is_file()
    remembered(rsd).write_bytes(content)
    asked(rsd)


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
def test_a_store_that_cannot_be_written_only_costs_time(rsd, copies):
    asked(rsd)
    remembered(rsd).parent.chmod(0o500)
    asked(rsd)


@pytest.mark.parametrize(
    ("quiet", "least", "told"), [(False, 0, True), (True, 0, False), (False, 10**9, False)]
)
@pytest.mark.parametrize("by", ["declared", "path"])
@pytest.mark.parametrize("alone", [True, False])
def test_hashing_that_takes_long_is_told_of(alone, by, quiet, least, told, rsd, copies, monkeypatch, capsys):
    """A file of many gigabytes takes minutes, whether its hash was declared or is asked for."""
    for name, value in rsd.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(rsd.home)
    monkeypatch.setattr(setup, "TOLD_ABOVE", least)
    name = "first" if by == "declared" else str(copies["first"])
    access = setup.Access(quiet=quiet)
    if alone:
        sha256 = setup.find_hashed_model(name, access).sha256
    else:
        choice = setup.Choice("starter", draft=name, target=name, prm="confidence")
        found = setup.find_hashed(choice, access, ("draft", "target"))
        sha256 = found.models["draft"].sha256
        assert found.models["target"].sha256 == sha256
    assert sha256
    size = copies["first"].stat().st_size / 1e6
    assert (f"verifying 100 % ({size:.0f} of {size:.0f} MB)" in capsys.readouterr().err) is told
