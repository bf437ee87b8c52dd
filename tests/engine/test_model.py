"""Models: exact tokens for fragments of text, pieces, and files that don't load."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rsd_cli.engine.context import ContextOptions
from rsd_cli.engine.llama import Model
from rsd_cli.engine.seats import Engine
from rsd_cli.errors import ModelError, RSDError, UsageError
from tests import tiny_gguf
from tests.engine.driving import text_of

KINDS = ("llama", "qwen2", "other", "spm", "spm-bytes", "mamba")
FRAGMENTS = (
    "Hello", " Hello", "  Hello", "Hello ", "\nHello", "\n\nHello", "\n", "\n\n", " ", ".\n\n", "\tx",
    "é", "日本語", "👩\N{ZERO WIDTH JOINER}🔬", "a\x00b", "x = 1.\n\nSo y = 2", "\u202eabc",
)  # fmt: skip


@pytest.mark.parametrize("fragment", FRAGMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_fragment_becomes_exactly_its_own_text(kind, fragment, tiny_model):
    model = tiny_model(kind)
    assert text_of(model, model.tokenize(fragment)) == fragment


@pytest.mark.parametrize("kind", KINDS)
def test_steps_tokenized_one_by_one_join_to_the_whole_text(kind, tiny_model):
    model = tiny_model(kind)
    steps = ["Hello World.\n\n", " So the sum is 3.\n\n", "\n\nThe answer", " is 3"]
    assert text_of(model, [token for step in steps for token in model.tokenize(step)]) == "".join(steps)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_becomes_no_token(kind, tiny_model):
    assert tiny_model(kind).tokenize("") == []


def test_half_a_character_becomes_its_replacement(tiny_model):
    model = tiny_model()
    assert text_of(model, model.tokenize("a\udc80b")).startswith("a\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_of_control_tokens_is_plain_text_outside_scaffolding(kind, tiny_model):
    model = tiny_model(kind)
    for text in ("<|im_end|>", "<|im_start|>system", "<s>", "</s>", "<|endoftext|>", "[PAD400]"):
        ids = model.tokenize(text)
        assert text_of(model, ids) == text
        assert not any(model.ends_generation(token) for token in ids)


def test_scaffolding_has_its_control_tokens(tiny_model):
    model = tiny_model()
    assert model.ends_generation(model.tokenize("<|im_end|>", special=True)[0])


def test_control_tokens_stand_for_no_text(tiny_model):
    model = tiny_model()
    assert model.piece(model.eos) == b""
    assert model.special_text(model.eos) == "<|im_end|>"
    assert model.special_text(-1) == ""


@pytest.mark.parametrize(
    ("kind", "can_cut"), [("llama", True), ("spm", True), ("mamba", False), ("hybrid", False)]
)
def test_a_model_knows_whether_its_memory_can_be_cut(kind, can_cut, tiny_model):
    assert tiny_model(kind).can_cut is can_cut


def test_a_truncated_file_is_a_model_error_that_names_the_reason(tiny, tmp_path):
    broken = tiny_gguf.truncated(tiny(), tmp_path / "half.gguf", 100_000)
    with pytest.raises(ModelError, match=r"could not load .*half\.gguf: .+") as caught:
        Model(broken)
    assert caught.value.exit_code == 3


LIMITED = """
import resource, sys
from pathlib import Path
from rsd_cli.engine.llama import Model
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    Model(Path(sys.argv[1]))
except Exception as error:
    print(error.exit_code, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
@pytest.mark.parametrize(("room", "words"), [(0, "bad_alloc"), (10_000_000, "Cannot allocate memory")])
def test_a_file_that_memory_has_no_room_for_is_not_to_blame(room, words, tiny):
    path = tiny(n_embd=256, n_layer=8)
    command = [sys.executable, "-c", LIMITED, str(path), str(room)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.startswith(f"4 llama.cpp could not load {path}")
    assert words in said


def test_no_file_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match="could not load"):
        Model(tmp_path / "absent.gguf")


@pytest.mark.parametrize("seats", [0, -1, 257])
def test_an_impossible_number_of_seats_is_refused_before_native_code(seats, tiny_model):
    with pytest.raises(UsageError, match="possible are 1 to 256"):
        Engine(tiny_model(), ContextOptions(256, seats, 64, 1))


def test_a_context_that_llama_cpp_refuses_is_a_resource_error_with_a_hint(tiny_model):
    with pytest.raises(RSDError) as caught:
        Engine(tiny_model(), ContextOptions(256, 1, 64, 1, kv_type="q8_0", flash_attention=False))
    assert caught.value.exit_code == 4
    assert caught.value.hint == "Try --kv-type f16, or a smaller --ctx."
