"""GGUF headers: sound ones are described, every broken one is one sentence (group B of the faults)."""

import ctypes
import os
import random
import socket
import struct
import time
import tracemalloc
from pathlib import Path

import llama_cpp
import pytest

from rsd_cli.engine.llama import _ggml
from rsd_cli.errors import ModelError
from rsd_cli.registry.gguf import read_header, read_tokens
from rsd_cli.registry.ggufbytes import parse
from rsd_cli.registry.tensortypes import TENSOR_TYPES
from tests.registry.gguf_bytes import ARRAY, File, Value, strings, text, u32


@pytest.fixture
def written(tmp_path):
    def write(content, name="model.gguf"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.build())
        return path

    return write


def problem(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_header(path)
    assert caught.value.exit_code == 3
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value.message


def test_a_sound_file_is_described(written):
    header = read_header(written(File()))
    assert (header.context_length, header.tensor_bytes) == (64, 96)
    assert (header.kv_heads, header.key_length, header.value_length) == (1, 4, 4)


def array_of(code: int, count: int, raw: bytes = b"") -> Value:
    return Value(ARRAY, struct.pack("<IQ", code, count) + raw)


def test_heads_may_differ_by_layer(written):
    heads = array_of(4, 2, struct.pack("<2I", 0, 2))
    file = File().with_values(llama__block_count=u32(2), llama__attention__head_count_kv=heads)
    assert read_header(written(file)).kv_heads == 2


@pytest.mark.parametrize(
    ("described", "values"),
    [
        (
            {"ssm.state_size": 128, "ssm.inner_size": 5120, "ssm.conv_kernel": 4, "ssm.group_count": 1},
            671_488,
        ),
        ({"ssm.state_size": 16, "ssm.inner_size": 4096, "ssm.conv_kernel": 4}, 16 * 4096 + 3 * 4096),
        ({"shortconv.l_cache": 3}, 8 * 2),
        ({"wkv.head_size": 64}, 8 * (2 + 64)),
        ({"wkv.head_size": 64, "token_shift_count": 1}, 8 * (1 + 64)),
        ({"kda.head_dim": 128, "ssm.conv_kernel": 4}, 2 * 128 * (3 * 3 + 128)),
        ({}, 0),
    ],
)
def test_a_state_is_that_of_all_layers_without_attention(described, values, written):
    """32-bit numbers; where the file does not say which layers have attention, all may have a state."""
    more = {f"llama.{key}": u32(number) for key, number in described.items()}
    heads = array_of(4, 3, struct.pack("<3I", 0, 2, 0))
    hybrid = File().with_values(llama__block_count=u32(3), llama__attention__head_count_kv=heads, **more)
    assert read_header(written(hybrid)).state_bytes == 2 * 4 * values
    plain = File().with_values(llama__block_count=u32(3), **more)
    assert read_header(written(plain)).state_bytes == 3 * 4 * values


def test_the_vocabulary_is_read_where_it_stands_not_where_its_key_is_quoted(written):
    key = struct.pack("<Q21sIIQ", 21, b"tokenizer.ggml.tokens", 9, 8, 1 << 60)
    file = File().with_values(general__name=text(key))
    assert read_tokens(written(file)) == [b"a", b"b", b"c"]


def test_a_vocabulary_of_numbers_is_refused(written):
    file = File().with_values(tokenizer__ggml__tokens=per_layer(1, 2, 3))
    assert "numbers instead of text" in problem(written(file))
    with pytest.raises(ModelError, match="numbers instead of text"):
        read_tokens(written(file))


def per_layer(*numbers: int) -> Value:
    return array_of(4, len(numbers), struct.pack(f"<{len(numbers)}I", *numbers))


def test_heads_and_their_keys_may_both_differ_by_layer(written):
    """As OpenELM has them."""
    file = File().with_values(
        llama__block_count=u32(3),
        llama__attention__head_count=per_layer(12, 16, 20),
        llama__attention__head_count_kv=per_layer(3, 4, 5),
        llama__attention__key_length=u32(64),
    )
    assert read_header(written(file)).kv_heads == 12
    file.with_values(llama__attention__head_count_kv=per_layer(3, 5, 4))
    assert "5 key-value heads do not divide 16 heads" in problem(written(file))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"GGUF" + bytes(16), "version 0"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "HTML page"),
        (b"PK\x03\x04" + bytes(60), "zip archive"),
        (bytes(64), "unfinished download"),
        (struct.pack("<Q", 99) + b'{"a":1}', "safetensors"),
        (b"GGML" + bytes(40), "GGML"),
        (File(version=999), "version 999"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(99), "big-endian"),
        (File(entry_count=1 << 62), "metadata entries"),
        (File(tensor_count=1 << 40), "tensors"),
        (File(entry_count=0), "architecture"),
        (File().with_values(general__name=Value(8, struct.pack("<Q", 1 << 62))), "string"),
        (File().with_values(x__y=array_of(4, 1 << 63)), "values"),
        (File().with_values(x__y=array_of(8, 1 << 30)), "strings"),
        (File().with_values(x__y=Value(ARRAY, struct.pack("<IQ", ARRAY, 1) * 10_000)), "contains arrays"),
        (File().with_values(x__y=Value(9999, b"")), "unknown type 9999"),
        (File().with_values(general__alignment=u32(0)), "alignment"),
        (File().with_values(general__alignment=u32(3)), "alignment"),
        (File().with_values(general__alignment=u32(1 << 31)), "alignment"),
        (File().with_values(general__alignment=text("32")), "alignment"),
        (File(more=[("", u32(1))]), "empty name"),
        (File(more=[("general.name", u32(1))]), "stands twice"),
        (File(shape=()), "0 dimensions"),
        (File(shape=(1, 1, 1, 1, 1)), "5 dimensions"),
        (File(shape=(0, 3)), "impossible shape"),
        (File(shape=(1 << 62, 1 << 62)), "impossible shape"),
        (File(type=2, shape=(8, 3)), "impossible shape"),
        (File(type=77), "unknown type 77"),
        (File(offset=32), "instead of 0"),
        (File(offset=(1 << 64) - 32), "instead of 0"),
        (File(tensor_name=b"\xff"), "not UTF-8"),
        (File(tensor_name="n" * 64), "string of 64"),
        (File(data=bytes(95)), "1 bytes beyond"),
        (File().with_values(llama__block_count=u32(100_000)), "block_count is 100000"),
        (File().with_values(llama__block_count=text("1")), "block_count"),
        (File().with_values(llama__context_length=u32(0)), "context_length is 0"),
        (File().with_values(llama__context_length=u32(2**32 - 1)), "context_length is 4294967295"),
        (File().with_values(llama__attention__head_count=u32(0)), "head_count is [0]"),
        (File().with_values(llama__attention__head_count=u32(3)), "do not divide"),
        (File().with_values(llama__attention__head_count_kv=u32(5)), "do not divide"),
        (
            File().with_values(llama__attention__head_count=array_of(6, 1, struct.pack("<f", 2))),
            "whole number",
        ),
        (File().with_values(llama__vocab_size=u32(2)), "3 tokens are listed"),
        (File().with_values(tokenizer__ggml__eos_token_id=u32(3)), "vocabulary has 3"),
        (File().with_values(tokenizer__ggml__bos_token_id=text("1")), "bos_token_id"),
        (File().with_values(tokenizer__ggml__tokens=strings()), "vocabulary is empty"),
        (File().with_values(tokenizer__ggml__model=text("none")), "no tokenizer"),
        (File().with_values(general__architecture=text("qwen22")), "'qwen22' is not known"),
        (File().with_values(general__architecture=u32(1)), "no architecture"),
        (File().with_values(tokenizer__chat_template=text(b"\xff\xfe")), "chat template"),
    ],
)
def test_a_broken_file_is_one_sentence_at_little_cost(written, content, says):
    path = written(content)
    tracemalloc.start()
    started = time.perf_counter()
    message = problem(path)
    took, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert says in message
    assert "\n" not in message
    assert took < 3
    assert peak < 50_000_000


def test_a_cut_file_is_refused_wherever_it_is_cut(written):
    whole = File().build()
    for length in range(len(whole)):
        problem(written(whole[:length]))


def test_random_damage_never_escapes_as_another_error(written):
    random.seed(7)
    whole = File().build()
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(random.randint(1, 8)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        try:
            read_header(written(bytes(damaged)))
        except ModelError:
            continue


def test_a_name_that_is_no_text_is_kept_escaped(written):
    named = written(File().with_values(general__name=text(b"a\xffb")))
    assert parse(named).metadata["general.name"] == "a\\xffb"
    read_header(named)


def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path, monkeypatch):
    assert "directory" in problem(tmp_path)
    assert "No such file" in problem(tmp_path / "absent.gguf")
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in problem(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)  # the name of a socket is 104 bytes long at most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        assert "not a regular file" in problem(tmp_path / "s")


def test_missing_parts_of_a_split_model_are_named(written):
    first = written(File().with_values(split__count=Value(2, struct.pack("<H", 3))), "m-00001-of-00003.gguf")
    message = problem(first)
    assert "m-00002-of-00003.gguf" in message
    assert "m-00003-of-00003.gguf" in message
    written(File(metadata={}), "m-00002-of-00003.gguf")
    written(File(metadata={}), "m-00003-of-00003.gguf")
    assert read_header(first).tensor_bytes == 3 * 96
    assert "not the first part" in problem(written(File(), "m-00002-of-00003.gguf"))


def test_every_type_is_stored_as_ggml_stores_it():
    """A block of no values is what ggml says of numbers that it has given up."""
    ggml = _ggml("ggml-base")
    ggml.ggml_blck_size.restype, ggml.ggml_type_size.restype = ctypes.c_int64, ctypes.c_size_t
    ggml.ggml_type_name.restype = ctypes.c_char_p
    theirs = {
        code: (
            ggml.ggml_type_name(code).decode().upper(),
            ggml.ggml_blck_size(code),
            ggml.ggml_type_size(code),
        )
        for code in range(llama_cpp.GGML_TYPE_COUNT)
    }
    ours = {code: (kind.name, kind.block_values, kind.block_bytes) for code, kind in TENSOR_TYPES.items()}
    assert ours == {code: kind for code, kind in theirs.items() if kind[1]}


def test_large_vocabularies_are_read_fast(written):
    tokens = [f"token{i}" for i in range(300_000)]
    path = written(File().with_values(tokenizer__ggml__tokens=strings(*tokens)))
    started = time.perf_counter()
    read_header(path)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    ("kind", "can"), [("llama", True), ("qwen2", True), ("mamba", False), ("hybrid", False)]
)
def test_a_recurrent_state_can_not_be_cut(kind, can, tiny, tiny_model):
    """As llama.cpp says once the model is loaded."""
    known = {"architecture": "qwen2"} if kind == "qwen2" else {}
    kind = "llama" if known else kind
    assert read_header(tiny(kind, **known)).can_be_cut is tiny_model(kind, **known).can_cut is can
