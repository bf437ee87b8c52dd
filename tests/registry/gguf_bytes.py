"""Builds GGUF files byte by byte, so that tests can break any single part of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

U32, F32, BOOL, STRING, ARRAY, U64 = 4, 6, 7, 8, 9, 10


@dataclass(frozen=True)
class Value:
    """A metadata value with its type; `raw` bytes go in as they are."""

    type: int
    raw: bytes


def u32(number: int) -> Value:
    return Value(U32, struct.pack("<I", number))


def text(value: str | bytes) -> Value:
    return Value(STRING, packed(value))


def strings(*values: str | bytes) -> Value:
    return Value(ARRAY, struct.pack("<IQ", STRING, len(values)) + b"".join(packed(value) for value in values))


def packed(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def sound_metadata() -> dict[str, Value]:
    return {
        "general.architecture": text("llama"),
        "general.name": text("tiny"),
        "llama.block_count": u32(1),
        "llama.context_length": u32(64),
        "llama.embedding_length": u32(8),
        "llama.attention.head_count": u32(2),
        "llama.attention.head_count_kv": u32(1),
        "tokenizer.ggml.model": text("gpt2"),
        "tokenizer.ggml.tokens": strings("a", "b", "c"),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.chat_template": text("{{ messages }}"),
    }


@dataclass
class File:
    """A sound little file; change a field, then write it."""

    metadata: dict[str, Value] = field(default_factory=sound_metadata)
    more: list[tuple[str, Value]] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    tensor_count: int | None = None
    entry_count: int | None = None
    tensor_name: str | bytes = "token_embd.weight"
    shape: tuple[int, ...] = (8, 3)
    type: int = 0
    offset: int = 0
    data: bytes = bytes(96)

    def with_values(self, **values: Any) -> File:
        for name, value in values.items():
            self.metadata[name.replace("__", ".")] = value
        return self

    def build(self) -> bytes:
        entries = [*self.metadata.items(), *self.more]
        head = struct.pack(
            "<4sIQQ", self.magic, self.version,
            1 if self.tensor_count is None else self.tensor_count,
            len(entries) if self.entry_count is None else self.entry_count,
        )  # fmt: skip
        body = b"".join(packed(key) + struct.pack("<I", value.type) + value.raw for key, value in entries)
        tensor = packed(self.tensor_name) + struct.pack("<I", len(self.shape))
        tensor += struct.pack(f"<{len(self.shape)}Q", *self.shape) + struct.pack(
            "<IQ", self.type, self.offset
        )
        start = head + body + tensor
        return start + bytes(-len(start) % 32) + self.data
