"""The README keeps up with the program."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rsd_cli.cli.app import app
from rsd_cli.decoding.weighting import WEIGHTINGS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_module_stands_in_the_file_tree():
    missing = [
        str(path.relative_to(ROOT))
        for folder in ("rsd_cli", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py" and path.name not in README
    ]
    assert missing == []


def test_every_file_of_the_tree_exists():
    tree = README[README.index("models.yaml               models") : README.index("## Licence")]
    names = re.findall(r"[a-z_]+\.py", tree)
    existing = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    assert [name for name in names if name not in existing] == []


@pytest.mark.parametrize("command", ["ask", "batch", "merge", "models", "doctor", "bench"])
def test_every_command_is_described_and_has_help(command):
    assert f"`rsd {command}" in README
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_the_options_that_the_readme_names_exist():
    shown = CliRunner().invoke(app, ["ask", "--help"], env={"COLUMNS": "200"}).output
    table = README[README.index("Useful with `rsd ask`") : README.index("Ctrl-C ends")]
    named = set(re.findall(r"`(--[a-z-]+)", table))
    assert {name for name in named if name not in shown} == set()


def test_every_parameter_of_a_weighting_is_described():
    shown = " ".join(CliRunner().invoke(app, ["ask", "--help"], env={"COLUMNS": "400"}).output.split())
    for name, kind in WEIGHTINGS.items():
        assert f"`{name}" in README
        for parameter in kind.defaults:
            assert f"{parameter}=" in README
            assert f"{parameter}=" in shown
