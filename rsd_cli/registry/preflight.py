"""Whether the values of a GGUF header make sense, for what would make llama.cpp abort or answer nonsense.

Every check raises MalformedError with the offending value. Tokenizer kinds are left to llama.cpp, which
refuses the ones that it does not know without harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsd_cli.registry.architectures import ARCHITECTURES, RECURRENT
from rsd_cli.registry.ggufbytes import MalformedError
from rsd_cli.registry.names import suggestion

if TYPE_CHECKING:
    from rsd_cli.registry.ggufbytes import RawHeader

MAX_BLOCKS = 512  # LLAMA_MAX_LAYERS: llama.cpp aborts beyond
MAX_CONTEXT = 16_000_000
MAX_WIDTH = 1 << 20
TEMPLATE = "tokenizer.chat_template"
TOKENS = "tokenizer.ggml.tokens"


def check_tensors(raw: RawHeader) -> None:
    """Tensors follow each other without gaps other than padding, up to the end of the file."""
    if not raw.tensors:
        raise MalformedError("it has no tensors (a vocabulary alone?)")
    expected = 0
    for tensor in raw.tensors:
        if tensor.offset != expected:
            raise MalformedError(f"the tensor {tensor.name!r} is at {tensor.offset} instead of {expected}")
        end = raw.data_start + tensor.offset + tensor.size
        if end > raw.file_size:
            raise MalformedError(
                f"the tensor {tensor.name!r} ends {end - raw.file_size} bytes beyond the file"
            )
        expected += tensor.size + -tensor.size % raw.alignment


def check_model(raw: RawHeader) -> None:
    """Architecture, sizes, heads, vocabulary and chat template."""
    architecture = raw.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise MalformedError("it names no architecture")
    if architecture not in ARCHITECTURES:
        hint = suggestion(architecture, ARCHITECTURES) if len(architecture) < 40 else ""
        known = f" ({hint})" if hint.startswith("did") else ""
        raise MalformedError(f"its architecture {architecture[:60]!r} is not known to llama.cpp{known}")
    _check_range(raw, f"{architecture}.block_count", MAX_BLOCKS)
    _check_range(raw, f"{architecture}.context_length", MAX_CONTEXT)
    _check_range(raw, f"{architecture}.embedding_length", MAX_WIDTH)
    if architecture not in RECURRENT:
        _check_heads(raw, architecture)
    _check_vocabulary(raw, architecture)
    _check_template(raw)


def numbers(raw: RawHeader, key: str) -> tuple[int, ...]:
    """A whole number, or one per layer: models with unlike layers write an array."""
    value = raw.metadata.get(key)
    if key in raw.arrays:
        found: tuple[object, ...] = raw.arrays[key].numbers
    else:
        found = () if value is None else (value,)
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in found):
        raise MalformedError(f"{key} is not a whole number")
    return tuple(int(str(number)) for number in found)


def _check_range(raw: RawHeader, key: str, most: int) -> None:
    value = raw.metadata.get(key)
    if value is None:
        raise MalformedError(f"it does not say {key}")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise MalformedError(f"{key} is {value!r}, not a whole number from 1 to {most}")


def _check_heads(raw: RawHeader, architecture: str) -> None:
    heads = numbers(raw, f"{architecture}.attention.head_count")
    kv_heads = numbers(raw, f"{architecture}.attention.head_count_kv") or heads
    if not heads or max(heads) < 1 or min(heads) < 0 or max(heads) > MAX_WIDTH:
        raise MalformedError(f"{architecture}.attention.head_count is {list(heads)[:8]}")
    if min(kv_heads) < 0:
        raise MalformedError(f"{architecture}.attention.head_count_kv is {list(kv_heads)[:8]}")
    for ours, kv in zip(_by_layer(heads, kv_heads), _by_layer(kv_heads, heads), strict=False):
        if kv and ours % kv:
            raise MalformedError(f"{kv} key-value heads do not divide {ours} heads")
    width = numbers(raw, f"{architecture}.embedding_length")[0]
    if f"{architecture}.attention.key_length" not in raw.metadata and width % max(heads):
        raise MalformedError(f"{max(heads)} heads do not divide the embedding length {width}")


def _by_layer(found: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """One number is that of all layers for which the other is given."""
    return found * len(other) if len(found) == 1 else found


def _check_vocabulary(raw: RawHeader, architecture: str) -> None:
    tokenizer = raw.metadata.get("tokenizer.ggml.model")
    if not isinstance(tokenizer, str) or tokenizer in {"none", "no_vocab"} or TOKENS not in raw.arrays:
        raise MalformedError("it has no tokenizer")
    size = raw.arrays[TOKENS].length
    if size < 1:
        raise MalformedError("its vocabulary is empty")
    if raw.arrays[TOKENS].strings_at is None:
        raise MalformedError("its vocabulary is numbers instead of text")
    declared = raw.metadata.get(f"{architecture}.vocab_size", size)
    if not isinstance(declared, int) or declared < size:
        raise MalformedError(f"{architecture}.vocab_size is {declared!r}, but {size} tokens are listed")
    for key, value in raw.metadata.items():
        if key.startswith("tokenizer.ggml.") and key.endswith("token_id") and not _is_token(value, size):
            raise MalformedError(f"{key} is {value!r}, but the vocabulary has {size} tokens")


def _is_token(value: object, vocabulary: int) -> bool:
    """2^32-1 is how converters write 'none'."""
    return isinstance(value, int) and (0 <= value < vocabulary or value in {-1, 0xFFFFFFFF})


def _check_template(raw: RawHeader) -> None:
    """The wrong prompt format makes any model stupid, so a broken template is no detail."""
    broken = [key for key in raw.not_text if key.startswith(TEMPLATE)]
    if broken:
        raise MalformedError(f"its chat template ({broken[0]}) is not UTF-8")
