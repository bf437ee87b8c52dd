"""What a GGUF file says about itself, after every check that can be made without llama.cpp.

Reads headers only; whether the weights are the right ones is for the hash to tell.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsd_cli.errors import ModelError
from rsd_cli.registry import ggufbytes, preflight
from rsd_cli.registry.ggufbytes import MalformedError
from rsd_cli.registry.names import shard_names

if TYPE_CHECKING:
    from pathlib import Path

    from rsd_cli.registry.ggufbytes import RawHeader

STATES = ("ssm", "wkv", "shortconv", "kda")  # what the metadata of models with a recurrent state describe
HINT = "Download it again (rsd models rm, rsd models pull), or choose another file."


class UnusableFileError(ModelError):
    """A file that is no model that could be used; `reason` does not name it again."""

    def __init__(self, path: Path, reason: object, hint: str = HINT) -> None:
        super().__init__(f"{path} can't be used: {reason}.", hint)
        self.reason = str(reason)


@dataclass(frozen=True)
class Header:
    """What a model needs memory for, by its header; `kv_heads` are summed over layers.

    A memory that can't be cut is that of a recurrent or hybrid model: a state of `state_bytes` for each text, not a
    cell for each token.
    """

    context_length: int
    kv_heads: int
    key_length: int
    value_length: int
    tensor_bytes: int
    layers: int
    can_be_cut: bool = True
    state_bytes: int = 0


def read_header(path: Path) -> Header:
    """Check the file, all its shards if it is split, and describe it; ModelError says what is wrong."""
    raw = _parsed(path)
    try:
        preflight.check_model(raw)
        shards = [raw, *(_parsed(shard) for shard in _further_shards(path, raw))]
        return _header(raw, shards)
    except MalformedError as error:
        raise UnusableFileError(path, error) from None


def read_tokens(path: Path) -> list[bytes]:
    """The vocabulary, which `read_header` does not keep; ModelError says what is wrong."""
    raw = _parsed(path)
    try:
        preflight.check_model(raw)
        return ggufbytes.read_strings(path, raw.arrays[preflight.TOKENS])
    except MalformedError as error:
        raise UnusableFileError(path, error) from None


def _parsed(path: Path) -> RawHeader:
    try:
        _check_kind(path)
        raw = ggufbytes.parse(path)
        preflight.check_tensors(raw)
    except MalformedError as error:
        raise UnusableFileError(path, error) from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise UnusableFileError(path, reason, "Check the path.") from None
    return raw


def _check_kind(path: Path) -> None:
    """Before opening: a FIFO would wait for a writer."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise MalformedError("it is a directory; name the .gguf file in it")
    if not stat.S_ISREG(status.st_mode):
        raise MalformedError("it is not a regular file")
    if status.st_size == 0:
        raise MalformedError("it is empty")


def _further_shards(path: Path, raw: RawHeader) -> list[Path]:
    count = raw.metadata.get("split.count", 0)
    siblings = [path.with_name(name) for name in shard_names(path.name)]
    if isinstance(count, int) and count > 1 and len(siblings) != count:
        raise MalformedError(
            f"it is one part of {count}, but its name does not end in -00001-of-{count:05d}.gguf"
        )
    if path.name != siblings[0].name:
        raise MalformedError(f"it is not the first part; name {siblings[0].name}")
    missing = [sibling.name for sibling in siblings if not sibling.is_file()]
    if missing:
        raise MalformedError(f"of its {len(siblings)} parts these are missing: {', '.join(missing[:8])}")
    return siblings[1:]


def _header(raw: RawHeader, shards: list[RawHeader]) -> Header:
    architecture = raw.metadata["general.architecture"]
    width, layers = _one(raw, "embedding_length"), _one(raw, "block_count")
    heads = preflight.numbers(raw, f"{architecture}.attention.head_count") or (0,)
    kv_heads = preflight.numbers(raw, f"{architecture}.attention.head_count_kv") or heads
    head_length = width // max(heads) if max(heads) else 0
    return Header(
        context_length=_one(raw, "context_length"),
        kv_heads=sum(kv_heads) if len(kv_heads) > 1 else kv_heads[0] * layers,
        key_length=_one(raw, "attention.key_length", head_length),
        value_length=_one(raw, "attention.value_length", head_length),
        tensor_bytes=sum(tensor.size for shard in shards for tensor in shard.tensors),
        layers=layers,
        can_be_cut=not any(
            key.startswith(f"{architecture}.{state}.") for key in raw.metadata for state in STATES
        ),
        state_bytes=4 * (kv_heads.count(0) if len(kv_heads) > 1 else layers) * _state(raw, max(heads)),
    )


def _state(raw: RawHeader, heads: int) -> int:
    """How many values a layer with a state has of each text, as llama.cpp makes it; which layers do is not said.

    Those without attention do, or all of them.
    """
    width = _one(raw, "embedding_length")
    if size := _one(raw, "wkv.head_size"):
        return width * (_one(raw, "token_shift_count", 2) + size)
    if length := _one(raw, "shortconv.l_cache"):
        return width * (length - 1)
    kept = max(0, _one(raw, "ssm.conv_kernel") - 1)
    if size := _one(raw, "kda.head_dim"):
        return heads * size * (3 * (kept or 3) + size)
    state, inner = _one(raw, "ssm.state_size"), _one(raw, "ssm.inner_size")
    return state * inner + kept * (inner + 2 * _one(raw, "ssm.group_count") * state)


def _one(raw: RawHeader, key: str, default: int = 0) -> int:
    found = preflight.numbers(raw, f"{raw.metadata['general.architecture']}.{key}")
    return max(found) if found else default
