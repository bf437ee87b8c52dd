"""The safetensors format, read strictly: header first, every claim checked against the file, no pickle, ever.

It knows bytes and shapes, and nothing of what tensors mean.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rsd_cli.errors import ModelError
from rsd_cli.strictjson import parsed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes per value
LARGEST_HEADER = 100_000_000
LARGEST_SIZE = 1 << 63
LENGTH = 8  # bytes of the little-endian length in front of the header


class Bytes(Protocol):
    """A file to read ranges of."""

    @property
    def name(self) -> str:
        """How errors call it."""
        ...

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes."""
        ...


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in its file; of a type that no head has only the place is known."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file whose header was checked."""

    source: Bytes
    stored: Mapping[str, Stored]
    metadata: Mapping[str, str]

    def tensor(self, name: str) -> NDArray[np.float32]:
        """A tensor's values in single precision; reads its bytes and no others."""
        at = self.stored[name]
        if at.dtype not in DTYPES or at.start == at.end:
            raise _broken(
                self.source,
                f"tensor {name[:60]!r} is of the type {at.dtype[:20]!r} with the shape {at.shape}",
            )
        return decoded(self.source.read(at.start, at.end - at.start), at.dtype).reshape(at.shape)


def decoded(data: bytes, dtype: str) -> NDArray[np.float32]:
    """Values of a safetensors type as float32."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
    return np.frombuffer(data, kinds[dtype]).astype(np.float32)


def open_tensors(source: Bytes) -> TensorFile:
    """Read and check the header; raises ModelError, having allocated nothing that the file only claims."""
    header = _header(source)
    data = LENGTH + int.from_bytes(source.read(0, LENGTH), "little")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(source, "its metadata is not text")
    stored = {name: _stored(source, name, entry, data) for name, entry in header.items()}
    _check_layout(source, stored, data)
    return TensorFile(source, stored, metadata)


def _broken(source: Bytes, reason: str) -> ModelError:
    return ModelError(f"{source.name} is no valid safetensors file: {reason}.", "Make or download it again.")


def _header(source: Bytes) -> dict[str, Any]:
    if source.size < LENGTH:
        raise _broken(source, f"it is {source.size} bytes long")
    start = source.read(0, LENGTH)
    length = int.from_bytes(start, "little")
    if length > min(source.size - LENGTH, LARGEST_HEADER):
        if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05", b"\x93N"):
            raise _broken(source, "it is a pickle or an archive, which is never opened here")
        raise _broken(source, f"its header claims {length:,} bytes, the file has {source.size:,}")
    try:
        header = parsed(source.read(LENGTH, length).decode())
    except (ValueError, RecursionError) as error:
        raise _broken(source, f"its header is no JSON ({error})") from None
    if not isinstance(header, dict):
        raise _broken(source, "its header is no JSON object")
    return header


def _stored(source: Bytes, name: str, entry: object, data: int) -> Stored:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _broken(source, f"tensor {name[:60]!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        raise _broken(source, f"tensor {name[:60]!r} is of the type {str(dtype)[:20]}")
    if not are_sizes(shape) or not are_sizes(offsets) or len(offsets) != len(("start", "end")):
        raise _broken(source, f"tensor {name[:60]!r} has no valid shape and offsets")
    start, end = offsets
    if start > end or (dtype in DTYPES and end - start != math.prod(shape) * DTYPES[dtype]):
        raise _broken(source, f"tensor {name[:60]!r} has the shape {shape} and {end - start:,} bytes")
    return Stored(dtype, tuple(shape), data + start, data + end)


def are_sizes(values: object) -> bool:
    """Whether these may be the sizes of a tensor, or places in a file."""
    return (
        isinstance(values, list | tuple)
        and len(values) <= 8
        and all(
            isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_SIZE
            for value in values
        )
    )


def _check_layout(source: Bytes, stored: Mapping[str, Stored], data: int) -> None:
    """Tensors fill the file one after the other, without gaps or overlaps."""
    end = data
    for name, at in sorted(stored.items(), key=lambda item: (item[1].start, item[1].end)):
        if at.start != end:
            raise _broken(source, f"tensor {name[:60]!r} begins at byte {at.start:,}, not at {end:,}")
        end = at.end
    if end != source.size:
        raise _broken(source, f"its tensors end at byte {end:,}, the file has {source.size:,}")


def packed(tensors: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of float32 tensors; the same input gives the same bytes."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    body = b""
    for name in sorted(tensors):
        data = tensors[name].astype("<f4").tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH)
    return len(text).to_bytes(LENGTH, "little") + text + body
