from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before llama.cpp's threads start

import math
from typing import TYPE_CHECKING

import pytest
from llama_cpp import Llama, llama_cpp

from tests import tiny_gguf
from tests.tiny_gguf import WRITERS

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.fixture
def load():
    opened = []

    def open_(path, **options):
        model = Llama(str(path), **{"n_ctx": 512, "n_threads": 1, "verbose": False} | options)
        opened.append(model)
        return model

    yield open_
    for model in opened:
        model.close()


def greedy(model: Llama, prompt: Sequence[int], n: int) -> list[int]:
    model.n_tokens = 0
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(model.ctx), True)
    model.eval(prompt)
    out: list[int] = []
    for _ in range(n):
        logits = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        out.append(max(range(model.n_vocab()), key=lambda i: logits[i]))
        model.eval(out[-1:])
    return out


def text(model: Llama, tokens: Sequence[int]) -> bytes:
    return b"".join(model.detokenize([token], special=True) for token in tokens)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_is_small_and_decodes_the_same_twice(kind, tmp_path, load):
    path = WRITERS[kind](tmp_path / "m.gguf")
    assert path.stat().st_size < 2_000_000
    model = load(path)
    tokens = model.tokenize(b"Hello.\n\nWorld", add_bos=False)
    pieces = [model.detokenize([token]) for token in tokens]
    assert b"".join(pieces).strip() == b"Hello.\n\nWorld"
    if kind == "spm-bytes":
        assert pieces[-4:] == [b".", b"\n", b"\n", b"World"]
    else:
        assert pieces[-2:] == [b".\n\n", b"World"]
    first = greedy(model, tokens, 20)
    assert greedy(model, tokens, 20) == first
    assert len(set(first)) > 5


@pytest.mark.parametrize("kind", WRITERS)
def test_most_seeds_end_a_step_and_some_a_turn_within_100_ascii_tokens(kind, tmp_path, load):
    steps = turns = 0
    for seed in range(4):
        model = load(WRITERS[kind](tmp_path / f"{seed}.gguf", seed=seed))
        out = greedy(model, model.tokenize(b"Hello World", special=True), 100)
        steps += (b"\n" if kind == "spm-bytes" else b"\n\n") in text(model, out)
        turns += model.token_eos() in out
        text(model, [token for token in out if token != model.token_eos()]).decode("ascii")
    assert steps >= 3
    assert turns >= 1


@pytest.mark.parametrize("kind", WRITERS)
def test_a_model_knows_its_memory(kind, tmp_path, load):
    model = load(WRITERS[kind](tmp_path / "m.gguf")).model
    assert llama_cpp.llama_model_is_recurrent(model) is (kind == "mamba")
    assert llama_cpp.llama_model_is_hybrid(model) is (kind == "hybrid")


@pytest.mark.parametrize(("kind", "cut"), [("llama", True), ("mamba", False), ("hybrid", False)])
def test_only_attention_can_forget_its_last_tokens(kind, cut, tmp_path, load):
    model = load(WRITERS[kind](tmp_path / "m.gguf"))
    model.eval(model.tokenize(b"Hello World. Hello"))
    memory = llama_cpp.llama_get_memory(model.ctx)
    assert llama_cpp.llama_memory_seq_rm(memory, 0, 2, -1) is cut


def test_special_tokens(tmp_path, load):
    model = load(tiny_gguf.write_llama(tmp_path / "m.gguf", extra=["<extra_0>"], metadata={"prm.scale": 0.5}))
    vocab = llama_cpp.llama_model_get_vocab(model.model)
    ids = model.tokenize(b"<|im_start|><|im_end|><|endoftext|><extra_0>", add_bos=False, special=True)
    assert [model.detokenize([i], special=True) for i in ids] == [
        *(b"<|im_start|>", b"<|im_end|>", b"<|endoftext|>", b"<extra_0>")
    ]
    assert [llama_cpp.llama_vocab_is_eog(vocab, i) for i in ids] == [False, True, True, False]
    assert (model.token_eos(), model.token_bos()) == (ids[1], ids[2])
    assert model.tokenize(b"Hello") == model.tokenize(b"Hello", add_bos=False)
    assert float(model.metadata["prm.scale"]) == 0.5


def test_words_are_single_tokens(tmp_path, load):
    model = load(tiny_gguf.write_llama(tmp_path / "m.gguf"), vocab_only=True)
    for word in tiny_gguf.WORDS:
        assert len(model.tokenize(word.encode(), add_bos=False)) == 1, word


def test_bos_is_added_where_the_file_says_so(tmp_path, load):
    for kind in ("spm", "qwen2"):
        model = load(WRITERS[kind](tmp_path / f"{kind}.gguf"), vocab_only=True)
        assert model.tokenize(b"Hello")[0] == model.token_bos()


def test_templates(tmp_path, load):
    template = "tokenizer.chat_template"
    assert load(tiny_gguf.write_llama(tmp_path / "a")).metadata[template] == tiny_gguf.CHATML
    assert load(tiny_gguf.write_spm(tmp_path / "b")).metadata[template] == tiny_gguf.LLAMA2
    assert load(tiny_gguf.write_llama(tmp_path / "c", template="{{ x }}")).metadata[template] == "{{ x }}"
    assert template not in load(tiny_gguf.write_without_template(tmp_path / "d")).metadata


def test_padding_and_other_merges(tmp_path, load):
    plain = load(tiny_gguf.write_llama(tmp_path / "a"), vocab_only=True)
    padded = load(tiny_gguf.write_llama(tmp_path / "b", vocab=512), vocab_only=True)
    other = load(tiny_gguf.write_other_vocab(tmp_path / "c"), vocab_only=True)
    sentence = b"The answer is.\n\n"
    assert (plain.n_vocab(), padded.n_vocab(), other.n_vocab()) == (448, 512, 700)
    assert plain.tokenize(sentence) == padded.tokenize(sentence) != other.tokenize(sentence)
    with pytest.raises(ValueError, match="more than 100"):
        tiny_gguf.write_llama(tmp_path / "d", vocab=100)


def test_favour_decides(tmp_path, load):
    model = load(tiny_gguf.write_llama(tmp_path / "m.gguf", favour={"\n\n": 50.0}))
    assert text(model, greedy(model, model.tokenize(b"Hello"), 5)) == b"\n\n" * 5
    model = load(tiny_gguf.write_llama(tmp_path / "n.gguf", favour={"\n\n": -50.0, "<eos>": -50.0}))
    assert model.token_eos() not in greedy(model, model.tokenize(b"Hello"), 100)


@pytest.mark.parametrize("kind", WRITERS)
def test_nan_reaches_the_logits(kind, tmp_path, load):
    model = load(WRITERS[kind](tmp_path / "m.gguf", nan=True))
    model.eval(model.tokenize(b"Hello"))
    assert math.isnan(llama_cpp.llama_get_logits_ith(model.ctx, -1)[0])


def test_broken_files_do_not_load(tmp_path, load):
    good = tiny_gguf.write_llama(tmp_path / "good.gguf")
    size = good.stat().st_size
    assert tiny_gguf.truncated(good, tmp_path / "short", -100).stat().st_size == size - 100
    magic = tiny_gguf.with_bytes(good, tmp_path / "magic", 0, b"GGML")
    assert magic.stat().st_size == size
    for broken in (tmp_path / "short", magic, tiny_gguf.truncated(good, tmp_path / "head", 64)):
        with pytest.raises(ValueError, match="Failed to load model"):
            load(broken)
