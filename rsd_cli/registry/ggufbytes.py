"""The bytes of a GGUF header, read within bounds: every count and length is compared with what is left.

Arrays are walked, not kept, unless they are short numbers. Whether the values make sense is `preflight`'s.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from rsd_cli.registry.tensortypes import TENSOR_TYPES

if TYPE_CHECKING:
    from pathlib import Path

MAX_ENTRIES = 100_000
MAX_STRING = 10_000_000
MAX_STRINGS = 4_000_000  # the largest vocabularies have a tenth of it
KEPT_NUMBERS = 1024
MAX_DIMS = 4
MAX_NAME = 63  # GGML_MAX_NAME without its final zero
MAX_VALUES = 1 << 48

Scalar: TypeAlias = "int | float | bool | str"

_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_NUMBERS = {code: struct.Struct("<" + letter) for code, letter in _FORMATS.items()}
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_U32, _U64 = _NUMBERS[4], _NUMBERS[10]


class MalformedError(Exception):
    """What is wrong with the file, as the end of a sentence about it."""


@dataclass(frozen=True)
class ArrayValue:
    """The length of an array, and its numbers if they are few; of strings only where they begin."""

    length: int
    numbers: tuple[int | float, ...] = ()
    strings_at: int | None = None


@dataclass(frozen=True)
class Tensor:
    """Name, shape, type and place of one tensor."""

    name: str
    shape: tuple[int, ...]
    type_code: int
    offset: int

    @property
    def values(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Its bytes in the file."""
        kind = TENSOR_TYPES[self.type_code]
        return self.values // kind.block_values * kind.block_bytes


@dataclass(frozen=True)
class RawHeader:
    """Everything before the tensor data."""

    metadata: dict[str, Scalar] = field(repr=False)
    arrays: dict[str, ArrayValue] = field(repr=False)
    tensors: tuple[Tensor, ...] = field(repr=False)
    not_text: frozenset[str]
    alignment: int
    data_start: int
    file_size: int


def parse(path: Path) -> RawHeader:
    """Read the header of a regular file that is not empty."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _Cursor(data).header()
        except struct.error:
            raise MalformedError("it ends inside its header") from None


def read_strings(path: Path, array: ArrayValue) -> list[bytes]:
    """The strings of an array that `parse` found in this very file."""
    found: list[bytes] = []
    at = array.strings_at or 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for _ in range(array.length):
            start = at + _U64.size
            at = start + _U64.unpack_from(data, at)[0]
            found.append(data[start:at])
    return found


class _Cursor:
    """A position in the file that only moves forward."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0
        self._metadata: dict[str, Scalar] = {}
        self._arrays: dict[str, ArrayValue] = {}
        self._not_text: set[str] = set()
        self._alignment = 32

    @property
    def _left(self) -> int:
        return len(self._data) - self._at

    def header(self) -> RawHeader:
        _check_magic(self._data[:64])
        self._at = 4
        _check_version(self._number(_U32))
        tensor_count = self._count("tensors", smallest=32)
        for _ in range(self._count("metadata entries", smallest=13)):
            self._entry()
        tensors = self._tensors(tensor_count)
        padding = -self._at % self._alignment
        return RawHeader(
            self._metadata, self._arrays, tensors, frozenset(self._not_text),
            self._alignment, self._at + padding, len(self._data),
        )  # fmt: skip

    def _number(self, kind: struct.Struct) -> int:
        value: int = kind.unpack_from(self._data, self._at)[0]
        self._at += kind.size
        return value

    def _count(self, what: str, smallest: int) -> int:
        count = self._number(_U64)
        if count > MAX_ENTRIES or count * smallest > self._left:
            raise MalformedError(f"it claims {count} {what} in {len(self._data)} bytes")
        return count

    def _bytes(self, longest: int) -> bytes:
        length = self._number(_U64)
        if length > min(longest, self._left):
            raise MalformedError(f"it claims a string of {length} bytes with {self._left} left")
        start, self._at = self._at, self._at + length
        return self._data[start : self._at]

    def _name(self, what: str, longest: int) -> str:
        try:
            name = self._bytes(longest).decode()
        except UnicodeDecodeError:
            raise MalformedError(f"the name of a {what} is not UTF-8") from None
        if not name:
            raise MalformedError(f"a {what} has an empty name")
        return name

    def _entry(self) -> None:
        key = self._name("metadata entry", 65_535)
        if key in self._metadata or key in self._arrays:
            raise MalformedError(f"the metadata key {key[:80]!r} stands twice")
        code = self._number(_U32)
        if key == "general.alignment":
            self._read_alignment(code)
        elif code == _ARRAY:
            self._arrays[key] = self._array(key)
        elif code == _STRING:
            self._metadata[key] = self._text(key)
        else:
            self._metadata[key] = self._number(_number_type(key, code))

    def _read_alignment(self, code: int) -> None:
        value = self._number(_U32)
        if code != _UINT32 or not 0 < value <= 1 << 20 or value & (value - 1):
            raise MalformedError(f"the alignment {value} (type {code}) is not a sensible power of two")
        self._metadata["general.alignment"] = self._alignment = value

    def _text(self, key: str) -> str:
        raw = self._bytes(MAX_STRING)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self._not_text.add(key)
            return raw.decode(errors="backslashreplace")

    def _array(self, key: str) -> ArrayValue:
        code, length = self._number(_U32), self._number(_U64)
        if code == _ARRAY:
            raise MalformedError(f"the array {key[:80]!r} contains arrays")
        if code == _STRING:
            start = self._at
            self._skip_strings(key, length)
            return ArrayValue(length, strings_at=start)
        kind = _number_type(key, code)
        if length * kind.size > self._left:
            raise MalformedError(f"it claims {length} values for {key[:80]!r} with {self._left} bytes left")
        start, self._at = self._at, self._at + length * kind.size
        if length > KEPT_NUMBERS:
            return ArrayValue(length)
        return ArrayValue(length, tuple(value for (value,) in kind.iter_unpack(self._data[start : self._at])))

    def _skip_strings(self, key: str, length: int) -> None:
        """A tight loop over local names: vocabularies have hundreds of thousands of strings."""
        if length > MAX_STRINGS or length * _U64.size > self._left:
            raise MalformedError(f"it claims {length} strings for {key[:80]!r} with {self._left} bytes left")
        data, at, end, unpack = self._data, self._at, len(self._data), _U64.unpack_from
        for _ in range(length):
            (size,) = unpack(data, at)
            at += 8 + size
            if at > end:
                raise MalformedError(f"a string of {key[:80]!r} reaches beyond the end of the file")
        self._at = at

    def _tensors(self, count: int) -> tuple[Tensor, ...]:
        tensors = tuple(self._tensor() for _ in range(count))
        if len({tensor.name for tensor in tensors}) != count:
            raise MalformedError("two tensors have the same name")
        return tensors

    def _tensor(self) -> Tensor:
        name = self._name("tensor", MAX_NAME)
        dims = self._number(_U32)
        if not 1 <= dims <= MAX_DIMS:
            raise MalformedError(f"the tensor {name!r} has {dims} dimensions")
        shape = tuple(self._number(_U64) for _ in range(dims))
        tensor = Tensor(name, shape, self._number(_U32), self._number(_U64))
        _check_shape(tensor)
        return tensor


def _number_type(key: str, code: int) -> struct.Struct:
    if code not in _NUMBERS:
        raise MalformedError(f"the metadata key {key[:80]!r} has the unknown type {code}")
    return _NUMBERS[code]


def _check_shape(tensor: Tensor) -> None:
    kind = TENSOR_TYPES.get(tensor.type_code)
    if kind is None:
        raise MalformedError(f"the tensor {tensor.name!r} has the unknown type {tensor.type_code}")
    if not 0 < tensor.values <= MAX_VALUES or tensor.shape[0] % kind.block_values:
        raise MalformedError(f"the tensor {tensor.name!r} has the impossible shape {list(tensor.shape)}")


def _check_version(version: int) -> None:
    if version & 0xFFFF == 0 and version:
        raise MalformedError("it is a big-endian GGUF, made for another kind of processor")
    if version not in {2, 3}:
        raise MalformedError(f"it has GGUF version {version}; 2 and 3 can be read")


def _check_magic(start: bytes) -> None:
    if start.startswith(b"GGUF"):
        return
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise MalformedError(
            "it looks like an HTML page, not a model (a download that ended at a log-in page?)"
        )
    if text.startswith(b"version https://git-lfs"):
        raise MalformedError("it looks like a Git LFS pointer, not the model it points to (git lfs pull)")
    if start.startswith(b"PK"):
        raise MalformedError("it looks like a zip archive or a PyTorch file, not a GGUF model")
    if start[8:9] == b"{":
        raise MalformedError("it looks like a safetensors file, not a GGUF model")
    if not any(start):
        raise MalformedError("it looks like an unfinished download: it starts with zeros")
    raise MalformedError(f"it does not start with GGUF but with {start[:4]!r}")
