"""Kernels that kill the process: found out in another one, and done without."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rsd_cli.engine import amx, llama
from rsd_cli.engine.llama import Model


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here, so nothing is tried")
@pytest.mark.parametrize(
    ("trial", "survived"),
    [
        (lambda: True, True),
        (lambda: False, False),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), False),
        (lambda: 1 / 0, False),
        (lambda: time.sleep(60), False),
    ],
    ids=["right", "wrong", "dead", "raises", "hangs"],
)
def test_a_trial_is_survived_only_by_what_is_right(trial, survived, capfd, monkeypatch):
    monkeypatch.setattr(amx, "SECONDS", 1)
    assert amx.survives(trial) is survived
    assert capfd.readouterr() == ("", "")


def test_without_fork_the_kernels_are_trusted(monkeypatch):
    monkeypatch.delattr(os, "fork", raising=False)
    assert amx.survives(lambda: False)


def product(layout, block):
    """Whether the product of ones is right in a layout, tried by a process that has decoded nothing."""
    code = (
        "from rsd_cli.engine import amx, llama\n"
        f"amx.LAYOUT, amx.ONES = {layout!r}, {block!r}\n"
        "print(amx.survives(lambda: amx.multiplies(llama._ggml('ggml-base'), llama._ggml('ggml-cpu'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip() == "True"


def test_a_layout_that_llama_cpp_does_not_offer_is_not_tried():
    assert product(b"of no build", amx.ONES)


@pytest.mark.parametrize(("block", "right"), [(amx.ONES, True), (b"\x00\x40" + amx.ONES[2:], False)])
def test_a_wrong_product_is_found(block, right):
    """On the layout that most CPUs have, since few have AMX: a scale of 2 in place of 1 doubles the product."""
    if "REPACK = 1" not in llama.build()["features"]:
        pytest.skip("this build of llama.cpp lays nothing out anew")
    assert product(b"CPU_REPACK", block) is right


@pytest.mark.parametrize("works", [True, False])
def test_a_model_is_laid_out_anew_only_where_that_works(works, tiny, monkeypatch):
    asked = []
    load = llama.C.llama_model_load_from_file

    def loading(path, params):
        asked.append(params.use_extra_bufts)
        return load(path, params)

    monkeypatch.setattr(llama, "amx_works", lambda: works)
    monkeypatch.setattr(llama.C, "llama_model_load_from_file", loading)
    Model(tiny()).close()
    assert asked == [works]
