"""Kernels that kill the process: found out in another one, and done without."""

import os
import signal

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
    ],
    ids=["right", "wrong", "dead", "raises"],
)
def test_a_trial_is_survived_only_by_what_is_right(trial, survived, capfd):
    assert amx.survives(trial) is survived
    assert capfd.readouterr() == ("", "")


def test_without_fork_the_kernels_are_trusted(monkeypatch):
    monkeypatch.delattr(os, "fork", raising=False)
    assert amx.survives(lambda: False)


def test_the_trial_runs_through_where_the_kernels_are_left_out_by_llama_cpp(monkeypatch):
    monkeypatch.setattr(amx, "LAYOUT", b"of no build")
    assert amx.survives(lambda: amx.multiplies(llama._ggml("ggml-base"), llama._ggml("ggml-cpu")))


@pytest.mark.parametrize(("block", "right"), [(amx.ONES, True), (b"\x00\x40" + amx.ONES[2:], False)])
def test_a_wrong_product_is_found(block, right, monkeypatch):
    """On the layout that most CPUs have, since few have AMX: a scale of 2 in place of 1 doubles the product."""
    if "REPACK = 1" not in llama.build()["features"]:
        pytest.skip("this build of llama.cpp lays nothing out anew")
    monkeypatch.setattr(amx, "LAYOUT", b"CPU_REPACK")
    monkeypatch.setattr(amx, "ONES", block)
    assert amx.survives(lambda: amx.multiplies(llama._ggml("ggml-base"), llama._ggml("ggml-cpu"))) is right


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
