"""What starting costs: help knows no heavy package, and takes little more time than Python itself."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import pytest

from tests.cli.command import ENTRY, environment

HEAVY = {"llama_cpp", "numpy", "huggingface_hub", "rich", "jinja2", "yaml", "pylatexenc"}
BY_TYPER = {"pydantic"}  # typer checks numbers with bounds by it


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [(["--help"], HEAVY | BY_TYPER), (["--version"], HEAVY | BY_TYPER), (["ask", "--help"], HEAVY)],
)
def test_help_imports_nothing_heavy(arguments, heavy, tmp_path):
    """importtime writes a line to stderr for every module, also in the forked child."""
    command = [sys.executable, "-X", "importtime", "-m", "rsd_cli", *arguments]
    done = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=True
    )
    modules = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "rsd_cli" in modules
    assert modules & heavy == set()
    assert done.stdout


def test_a_refused_question_imports_no_llama_cpp(rsd):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "rsd_cli", "ask", "", "--trio", "tiny"],
        env=rsd.env(), cwd=rsd.home, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    modules = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert modules & {"llama_cpp", "numpy", "huggingface_hub"} == set()


def cpu_seconds(command, env):
    """CPU time of a process with its children: what it costs, whoever else is busy."""
    before = os.times()
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True, timeout=60)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_help_costs_little_more_than_python(tmp_path):
    """The bar is 0.15 s on a quiet machine; beside others a core is slower, so bare Python is the measure too."""
    env = environment(tmp_path)
    bare, shown = [], []
    for _ in range(5):
        bare.append(cpu_seconds([sys.executable, "-c", ""], env))
        shown.append(cpu_seconds([*ENTRY, "--help"], env))
    extra = statistics.median(shown) - statistics.median(bare)
    assert extra < max(0.25, 8 * statistics.median(bare)), (shown, bare)


def test_the_command_without_arguments_says_what_there_is_and_is_a_usage_error(tmp_path):
    done = subprocess.run(
        ENTRY, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "rsd ask" in done.stderr
    assert len(done.stderr.splitlines()) == 5
    assert "Traceback" not in done.stderr


def test_an_unknown_command_is_a_usage_error(rsd):
    done = rsd("aks", "What?")
    assert done.code == 2
    assert "aks" in done.err
    assert done.stdout == b""
