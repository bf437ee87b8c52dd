"""`rsd doctor`, run as its own process, since importing llama.cpp changes the environment that it reports."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from rsd_cli.registry.environment import features, hub_cache, relevant_variables
from rsd_cli.registry.fitness import Room, TrioFacts, compare, trio_facts
from rsd_cli.registry.loading import load_registry
from rsd_cli.registry.store import Store
from tests.registry.gguf_bytes import ARRAY, U32, File, Value

OMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
KEYS = {
    *("versions", "build", "engine_problem", "devices", "available_memory", "cpu", "openmp"),
    *("environment", "places", "models_problem", "trios"),
}


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """Nothing of the user's is found by what runs in this process."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("RSD_MODELS", raising=False)
    monkeypatch.setattr("rsd_cli.registry.hub.cached", lambda _source: None)


@pytest.fixture
def doctor(tmp_path):
    """doctor(*arguments, **variables): the finished process, in directories of its own."""
    (tmp_path / "work").mkdir()

    def run(*arguments, **variables):
        places = {
            "HOME": tmp_path,
            "RSD_HOME": tmp_path / "home",
            "XDG_CONFIG_HOME": tmp_path / "config",
            "XDG_CACHE_HOME": tmp_path / "cache",
        }
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        return subprocess.run(
            [sys.executable, "-m", "rsd_cli", "doctor", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=tmp_path / "work",
            env=kept | {name: str(value) for name, value in {**places, **variables}.items()},
        )

    return run


def declare(tmp_path: Path, draft: object, target: object, prm: str = "confidence") -> Path:
    (tmp_path / "models.yaml").write_text(
        f"trios: {{pair: {{draft: {draft}, target: {target}, prm: {prm}, threshold: 0.5, use_for: tests}}}}"
    )
    return tmp_path / "models.yaml"


def facts(
    tmp_path: Path, draft: object, target: object, room: Room, prm: str = "confidence", n_ctx: int = 0
) -> TrioFacts:
    registry = load_registry(declare(tmp_path, draft, target, prm))
    return trio_facts("pair", registry, Store(offline=True, directory=tmp_path / "store"), n_ctx, room)


def test_json_is_one_document_with_all_facts(doctor, tmp_path):
    done = doctor("--json")
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(report) == KEYS
    assert report["build"]["features"]["CPU"]
    assert [device["name"] for device in report["devices"]].count("CPU") == 1
    assert report["places"]["store"] == {"path": str(tmp_path / "home" / "models"), "exists": False}
    assert report["places"]["store_free_bytes"] > 0
    assert {"starter", "tiny"} <= {trio["name"] for trio in report["trios"]}
    assert not (tmp_path / "home").exists(), "it only looks"


@pytest.mark.parametrize("width", ["60", "160", None])
def test_text_is_plain_and_fits(doctor, width):
    shown = doctor(**({"COLUMNS": width} if width else {})).stdout
    assert "\x1b" not in shown
    assert "estimated" in shown
    assert not any(line.endswith(" ") for line in shown.splitlines())
    too_long = [line for line in shown.splitlines() if len(line) > int(width or 160)]
    assert not [line for line in too_long if " " in line.strip()], "only what can't be broken is longer"


def test_the_thread_settings_are_rsds_unless_the_user_has_one(doctor):
    ours = {one["name"]: one for one in json.loads(doctor("--json").stdout)["openmp"]}
    assert {name: ours[name]["origin"] for name in OMP} == {
        "OMP_WAIT_POLICY": "unset", "GOMP_SPINCOUNT": "rsd", "KMP_BLOCKTIME": "rsd", "OMP_NUM_THREADS": "unset",
    }  # fmt: skip
    done = doctor("--json", OMP_WAIT_POLICY="passive", OMP_NUM_THREADS="1")
    users = {one["name"]: one for one in json.loads(done.stdout)["openmp"]}
    assert users["OMP_WAIT_POLICY"] == {"name": "OMP_WAIT_POLICY", "value": "passive", "origin": "user"}
    assert users["GOMP_SPINCOUNT"]["origin"] == "unset"
    assert "passive (your setting)" in doctor(OMP_WAIT_POLICY="passive").stdout


def test_a_broken_llama_cpp_is_a_line_with_a_hint(doctor, tmp_path):
    package = tmp_path / "broken" / "llama_cpp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .llama_cpp import *")
    (package / "llama_cpp.py").write_text("raise RuntimeError('libllama.so is\\nnot for this machine')")
    done = doctor(PYTHONPATH=package.parent)
    assert done.returncode == 3
    assert "RuntimeError: libllama.so is not for this machine" in " ".join(done.stdout.split())
    assert "pip install --force-reinstall" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "trio starter" in done.stdout
    report = json.loads(doctor("--json", PYTHONPATH=package.parent).stdout)
    assert report["build"] is None
    assert "llama-cpp-python" in report["engine_problem"]["hint"]


def test_broken_configuration_comes_with_the_rest_of_the_report(doctor, tmp_path):
    (tmp_path / "bad.yaml").write_text("trioz: {}\n")
    done = doctor("--models", str(tmp_path / "bad.yaml"), "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 2
    assert "unknown key 'trioz'" in done.stderr
    assert "unknown key 'trioz'" in report["models_problem"]["reason"]
    assert str(tmp_path / "bad.yaml") in report["places"]["config_files"]
    assert report["trios"] == []


def test_one_trio_can_be_asked_for(doctor, tmp_path, tiny):
    declare(tmp_path, tiny("llama"), tiny("other"))
    done = doctor("--models", str(tmp_path / "models.yaml"), "--trio", "pair", "--ctx", "512", COLUMNS="300")
    assert "context of 512 tokens" in done.stdout
    assert "draft and target differ" in done.stdout
    assert "trio starter" not in done.stdout
    unknown = doctor("--trio", "startr")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "starter" in unknown.stderr


def test_present_files_fit_or_do_not(tmp_path, tiny):
    path = tiny("llama")
    roomy = facts(tmp_path, path, path, Room(memory=10**10, gpu=1))
    assert (roomy.files, roomy.memory.fits, roomy.memory.fits_gpu) == ("present", "yes", "no")
    assert roomy.vocabularies is not None
    assert roomy.vocabularies.shared
    assert facts(tmp_path, path, path, Room(1, None)).memory.fits == "no"
    assert facts(tmp_path, path, path, Room(None, None)).memory.fits == "unknown"
    assert "trained for" in facts(tmp_path, path, path, Room(10**10, None), n_ctx=5000).problem


def test_missing_files_are_judged_by_their_weights(tmp_path, tiny):
    small = "smollm2-135m"
    facts_of = facts(tmp_path, tiny("llama"), small, Room(10**10, None), prm=small)
    assert (facts_of.files, facts_of.missing, facts_of.missing_bytes) == ("missing", (small,), 98362432)
    assert (facts_of.memory.weights_only, facts_of.memory.fits) == (True, "unknown")
    assert facts(tmp_path, tiny("llama"), small, Room(10**7, None)).memory.fits == "no"
    unsized = facts(tmp_path, tiny("llama"), "qwen2.5-math-7b", Room(1, None))
    assert (unsized.memory.estimated_bytes, unsized.memory.fits) == (None, "unknown")


def test_a_file_that_is_no_model_is_unusable(tmp_path, tiny):
    (tmp_path / "page.gguf").write_text("<html>log in</html>")
    found = facts(tmp_path, tiny("llama"), tmp_path / "page.gguf", Room(10**10, None))
    assert found.files == "unusable"
    assert "HTML" in found.problem


def test_a_crafted_vocabulary_is_unusable(tmp_path, tiny):
    tokens = Value(ARRAY, struct.pack("<IQ3I", U32, 3, 1, 2, 3))
    (tmp_path / "crafted.gguf").write_bytes(File().with_values(tokenizer__ggml__tokens=tokens).build())
    found = facts(tmp_path, tiny("llama"), tmp_path / "crafted.gguf", Room(10**10, None), n_ctx=32)
    assert found.files == "unusable"
    assert "vocabulary" in found.problem


def test_vocabularies_are_compared_token_by_token(tiny):
    padded = compare(tiny("llama"), tiny("llama", vocab=460))
    assert (padded.shared, padded.draft_tokens, padded.target_tokens) == (True, 448, 460)
    other = compare(tiny("llama"), tiny("other"))
    assert not other.shared
    assert other.first_difference is not None


def test_secrets_stay_secret():
    shown = relevant_variables(
        {
            "HF_TOKEN": "hf_secret",
            "HF_ENDPOINT": "https://me:secret@hub.example/x?key=secret",
            "HTTPS_PROXY": "me:secret@proxy:3128",
            "HF_HOME": "/models",
            "HF_HUB_OFFLINE": "",
            "PATH": "/bin",
        }
    )
    assert shown == {
        "HF_HOME": "/models",
        "HF_ENDPOINT": "https://…@hub.example/x?…",
        "HTTPS_PROXY": "…@proxy:3128",
        "HF_TOKEN": "set",
    }


def test_features_are_told_apart_by_backend():
    line = "CPU : SSE3 = 1 | AVX = 1 | CUDA : ARCHS = 890 | USE_GRAPHS = 1"
    assert features(line) == {"CPU": ("SSE3", "AVX"), "CUDA": ("ARCHS=890", "USE_GRAPHS")}
    assert features("") == {}


@pytest.mark.parametrize(
    "variables", [{}, {"HF_HOME": "~/hf"}, {"HF_HUB_CACHE": "/h"}, {"XDG_CACHE_HOME": "/c"}]
)
def test_the_hub_cache_is_where_the_hub_says(variables):
    code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": "/h", **variables},
    )
    there = {"HOME": "/h", **variables}
    ours = str(hub_cache(there)).replace(str(Path.home()), "/h")
    assert ours == said.stdout.strip()
