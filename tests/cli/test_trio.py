"""The loaded models of a run: who shares weights, and what an abort while loading leaves."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from typing import Any

import numpy as np
import pytest

from rsd_cli.cli.screen import Screen
from rsd_cli.cli.shape import Shape
from rsd_cli.cli.trio import LoadedTrio
from rsd_cli.cli.warm import FoundModel
from rsd_cli.decoding.events import Streamed
from rsd_cli.decoding.recording import Circumstances, make_record
from rsd_cli.decoding.runner import Finished, Runner
from rsd_cli.decoding.trajectory import Problem, Settings
from rsd_cli.engine.llama import DecodeAborted, Device, Model
from rsd_cli.errors import ModelError, UsageError
from rsd_cli.rewards.families import Confidence
from rsd_cli.rewards.heads import Head, Layer
from rsd_cli.rewards.spec import PrmSpec
from rsd_cli.rewards.value_head import ValueHead
from tests.engine.driving import NO_END


@pytest.fixture
def trio(tiny):
    made = []

    def make(family: str | None = "confidence", shape=None, aborted=lambda: False, **paths):
        models: Any = {role: FoundModel(role, path, None, None) for role, path in paths.items()}
        made.append(
            LoadedTrio(
                models,
                PrmSpec(family, family) if family else None,
                shape or Shape(n_batch=64, threads=1),
                aborted,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_roles_of_one_file_share_its_weights_and_not_its_memory(trio, tiny):
    made = trio(draft=tiny(), target=tiny(), prm=tiny("other"))
    assert made.engine("draft").model is made.engine("target").model
    assert made.engine("draft") is not made.engine("target")
    assert made.engine("prm").model is not made.engine("draft").model


def test_a_role_loads_when_it_is_asked_for(trio, tiny):
    made = trio(draft=tiny(), target=tiny("other"))
    assert made.loaded() == {}
    made.engine("draft")
    assert set(made.loaded()) == set(made.ids()) == {"draft"}
    made.load_all()
    made.engine("target")
    assert set(made.ids()) == {"draft", "target"}


def test_the_draft_writes_while_the_prm_loads(trio, tiny, monkeypatch):
    made = trio("judge", draft=tiny(favour=NO_END), prm=tiny(seed=2), target=tiny("other"))
    load, written = LoadedTrio._load, threading.Event()

    def patient(trio, role):
        assert role == "draft" or written.wait(10), f"the draft waits for the {role}"
        return load(trio, role)

    monkeypatch.setattr(LoadedTrio, "_load", patient)
    for happened in Runner(made, Settings(max_tokens=20, max_steps=2)).run([Problem("p", "What?")]):
        if isinstance(happened, Streamed):
            written.set()
    assert isinstance(happened, Finished)
    assert set(happened.usage) >= {"draft", "prm"}


def test_a_system_prompt_of_nothing_is_no_message(trio, tiny):
    made = trio(draft=tiny())
    with_system, without = made.prompt("draft", "Think.", "What?"), made.prompt("draft", "", "What?")
    assert len(with_system) > len(without)
    start = made.engine("draft").model.tokenize("<|im_start|>", special=True)[0]
    assert (with_system.count(start), without.count(start)) == (3, 2)


def test_the_context_is_the_models_own_up_to_a_limit(trio, tiny):
    made = trio(draft=tiny(n_ctx_train=512), target=tiny(n_ctx_train=16384))
    assert (made.engine("draft").n_ctx, made.engine("target").n_ctx) == (512, 4096)


def test_a_context_that_a_model_was_not_trained_for_is_refused(trio, tiny):
    with pytest.raises(UsageError, match=r"--ctx 4,096 .* 512 tokens"):
        trio(shape=Shape(ctx=4096, n_batch=64, threads=1), draft=tiny(n_ctx_train=512)).engine("draft")


def test_confidence_needs_no_model_and_a_strategy_without_prm_no_family(trio, tiny):
    assert isinstance(trio(draft=tiny()).family, Confidence)
    assert trio(family=None, draft=tiny()).family is None


@pytest.mark.parametrize(
    ("family", "shape", "there", "expected"),
    [
        ("judge", {}, "CPU", True),
        ("confidence", {}, "CPU", False),
        ("judge", {"kv_type": "q8_0"}, "CPU", False),
        ("judge", {}, "BLAS", False),
        ("judge", {}, "CUDA0", False),
        ("judge", {"gpu_layers": {"prm": 0}}, "CUDA0", True),
    ],
)
def test_prms_that_read_logits_read_exactly_on_a_cpu(family, shape, there, expected, trio, tiny, monkeypatch):
    monkeypatch.setattr("rsd_cli.cli.shape.can_offload", lambda: there == "CUDA0")
    monkeypatch.setattr("rsd_cli.cli.shape.devices", lambda: [Device(there, "", 1, 1)])
    file = tiny(n_embd=128)  # a quantized cache needs heads of 32
    made = trio(family, Shape(n_batch=64, threads=1, **shape), draft=file, prm=file)
    assert made.engine("prm").context.exact is expected
    assert not made.engine("draft").context.exact


@pytest.fixture
def headed(trio, tiny, tmp_path):
    """A trio whose PRM has such a head on the tiny model."""

    def make(value=0.1, **options):
        weight = np.full((1, 64), value, np.float32)
        path = tmp_path / "head.safetensors"
        Head("value-head", "sigmoid", 64, (Layer(weight, np.zeros(1, np.float32)),), **options).save(path)
        made = trio(draft=tiny(), prm=tiny())
        made.prm = PrmSpec("own", "value-head", "trl", path, "\n")
        return made

    return make


def test_a_head_of_zeros_is_warned_of_where_it_is_used(headed, capsys):
    assert isinstance(headed(0.0).family, ValueHead)
    assert "of zeros" in capsys.readouterr().err
    assert isinstance(headed().family, ValueHead)
    assert capsys.readouterr().err == ""


def test_a_head_for_another_file_is_refused_also_where_no_hash_is_declared(
    headed, tiny, tmp_path, monkeypatch
):
    monkeypatch.setenv("RSD_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"hash aaaaaaaaaaaa…, prm has"):
        _ = headed(base_sha256="a" * 64).family
    right = hashlib.sha256(tiny().read_bytes()).hexdigest()
    assert isinstance(headed(base_sha256=right).family, ValueHead)
    verdicts = tmp_path / "models" / "verdicts.json"
    assert json.loads(verdicts.read_bytes())[str(tiny())]["sha256"] == right
    verdicts.write_text(verdicts.read_text().replace(right, "a" * 64))  # so it was not read again
    assert isinstance(headed(base_sha256="a" * 64).family, ValueHead)


def test_a_hash_that_is_computed_can_be_aborted(headed, tmp_path, monkeypatch):
    monkeypatch.setenv("RSD_HOME", str(tmp_path))
    made = headed(base_sha256="a" * 64)
    made.wait_for_all()
    made.template("prm")
    made.aborted = lambda: True
    with pytest.raises(DecodeAborted):
        _ = made.family
    assert not list(tmp_path.rglob("verdicts.json"))


def test_a_file_that_does_not_load_is_an_error_of_its_role(trio, tiny, tmp_path):
    (tmp_path / "bad.gguf").write_text("no model")
    made = trio(draft=tiny(), target=tmp_path / "bad.gguf")
    made.engine("draft")
    with pytest.raises(ModelError, match=r"bad\.gguf"):
        made.engine("target")


def test_an_aborted_load_leaves_a_trio_that_can_be_described(trio, tiny):
    made = trio(aborted=lambda: True, draft=tiny())
    with pytest.raises(DecodeAborted):
        made.load("draft").result()
    assert made.loaded() == {}
    assert made.ids() == {}


def test_what_was_aborted_is_loaded_when_it_is_needed_again(trio, tiny):
    stopped = threading.Event()
    made = trio(aborted=stopped.is_set, draft=tiny())
    stopped.set()
    with pytest.raises(DecodeAborted):
        made.load("draft").result()
    stopped.clear()
    assert made.engine("draft").n_ctx > 0
    assert set(made.loaded()) == {"draft"}


def test_an_abort_that_takes_effect_late_does_not_end_the_next_question(trio, tiny, monkeypatch):
    """The loader may be reading a large tensor when it is told to stop, and the next question comes meanwhile."""
    made, goes_on, load = trio(draft=tiny()), threading.Event(), Model

    def slow(*arguments: Any) -> Model:
        monkeypatch.setattr("rsd_cli.cli.trio.Model", load)
        goes_on.wait(10)
        raise DecodeAborted

    monkeypatch.setattr("rsd_cli.cli.trio.Model", slow)
    made.load("draft")
    made.on_loading = lambda _role, _name: goes_on.set()
    assert made.engine("draft").n_ctx > 0


def test_closing_gives_up_what_is_still_loading(trio, tiny, monkeypatch):
    """As llama.cpp does, which asks between tensors; an answer that was ready long ago is not to wait for its end."""
    made, begun = trio(draft=tiny()), threading.Event()

    def slow(_path: Any, _layers: Any, aborted: Any) -> Model:
        begun.set()
        for _ in range(1000):
            if aborted():
                raise DecodeAborted
            time.sleep(0.01)
        raise AssertionError("it was loaded to the end")

    monkeypatch.setattr("rsd_cli.cli.trio.Model", slow)
    loading = made.load("draft")
    assert begun.wait(10)
    made.close()
    assert isinstance(loading.exception(), DecodeAborted)


def test_a_prm_with_a_shorter_context_than_its_draft_leaves_long_steps_to_the_target(trio, tiny, capsys):
    made = trio(
        "judge",
        draft=tiny(favour=NO_END),
        target=tiny("other", favour={"<eos>": 300.0}),
        prm=tiny("qwen2", n_ctx_train=256),
    )
    settings = Settings(threshold=0.0, max_tokens=300, system="")
    (finished,) = (
        one for one in Runner(made, settings).run([Problem("p", "What?")]) if isinstance(one, Finished)
    )
    (step,) = finished.trajectory.steps
    assert step.author == "target"
    assert step.rejected is not None
    assert (step.rejected.reward, step.rejected.tokens) == (None, 300)
    now = time.perf_counter()
    record = make_record(finished, Circumstances(made.ids(), {}, now, now, now, None, 0))
    Screen(as_json=True, quiet=False, color=False).deliver(record)
    said = capsys.readouterr()
    assert "PRM gave no reward for 1 step" in said.err
    assert json.loads(said.out)["steps"][0]["rejected"]["reward"] is None


@pytest.mark.parametrize(
    ("offloads", "gpus", "layers", "expected"),
    [
        (False, 0, {}, False),
        (True, 1, {}, False),
        (True, 2, {}, True),
        (True, 1, {"target": 0}, True),
        (True, 1, {"draft": 0, "target": 0}, False),
    ],
)
def test_models_compute_side_by_side_where_they_are_on_several_devices(
    offloads, gpus, layers, expected, trio, tiny, monkeypatch
):
    there = [Device("CPU", "a CPU", 1, 1), *(Device(f"CUDA{i}", "a GPU", 1, 1) for i in range(gpus))]
    monkeypatch.setattr("rsd_cli.cli.shape.can_offload", lambda: offloads)
    monkeypatch.setattr("rsd_cli.cli.shape.devices", lambda: there)
    made = trio(draft=tiny(), target=tiny("other"), shape=Shape(n_seats=40, threads=1, gpu_layers=layers))
    assert made.on_several_devices is expected
    assert made.shape.n_streams == (40 if offloads else 16)
