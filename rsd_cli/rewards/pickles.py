"""pytorch_model.bin without PyTorch: a zip with a pickle, read by an unpickler that knows tensors and nothing else.

Nothing that a pickle names is imported or called; what it may name stands in one table. Values are read by byte
range, one tensor at a time.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from rsd_cli.errors import ModelError
from rsd_cli.rewards.tensors import DTYPES, are_sizes, decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from rsd_cli.rewards.tensors import Bytes

LARGEST_PICKLE = 50_000_000
BUFFER = 1 << 16
LARGEST_TUPLE = 256  # values, those of tuples in it counted: a tuple is hashed anew wherever it is looked up
STORAGES = {"DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16"}
LOCAL_HEADER = 30  # bytes of a zip member's header before its name
PUT = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")  # the unpickler makes room up to the number that they name
GET = ("GET", "BINGET", "LONG_BINGET")
SETS = ("EMPTY_SET", "ADDITEMS", "FROZENSET")  # no tensor needs one, and nested ones take forever to compare
TUPLES = ("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
NO_ARCHIVE = (
    zipfile.BadZipFile,
    StopIteration,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
)
NO_PICKLE = (
    pickle.UnpicklingError,
    EOFError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


class _Stateless:
    """What a pickle can make, and then say nothing more about."""

    def __setstate__(self, state: object) -> NoReturn:
        raise TypeError("a tensor in it has a state")


@dataclass(frozen=True)
class Storage(_Stateless):
    """A member of the archive that holds values; a type that no head has is None."""

    dtype: str | None
    key: str


@dataclass(frozen=True)
class Pickled(_Stateless):
    """A tensor as the pickle describes it: where its values start in its storage, in values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class PickledFile:
    """The tensors of one archive."""

    source: Bytes
    stored: Mapping[str, Pickled]
    folder: str
    archive: zipfile.ZipFile

    def tensor(self, name: str) -> NDArray[np.float32]:
        """A tensor's values in single precision; reads its bytes and no others."""
        at = self.stored[name]
        if at.storage.dtype is None or at.stride != _row_major(at.shape):
            raise _refused(self.source, f"tensor {name!r} is stored in a form that no head has")
        width = DTYPES[at.storage.dtype]
        member = f"{self.folder}data/{at.storage.key}"
        offset, length = at.offset * width, math.prod(at.shape) * width
        room = self._member(member).file_size
        if not 0 < length <= room - offset:
            raise _refused(
                self.source,
                f"tensor {name[:60]!r} claims bytes {offset:,} to {offset + length:,} of {room:,} in {member[:60]!r}",
            )
        start = self._start(member) + offset
        if start + length > self.source.size:
            raise _refused(self.source, f"its member {member[:60]!r} is cut off")
        return decoded(self.source.read(start, length), at.storage.dtype).reshape(at.shape)

    def _member(self, member: str) -> zipfile.ZipInfo:
        try:
            info = self.archive.getinfo(member)
        except KeyError:
            raise _refused(self.source, f"it has no member {member[:60]!r}") from None
        if info.compress_type != zipfile.ZIP_STORED:
            raise _refused(self.source, f"its member {member[:60]!r} is compressed")
        return info

    def _start(self, member: str) -> int:
        """Where the bytes of a member begin."""
        info = self._member(member)
        if not 0 <= info.header_offset <= self.source.size - LOCAL_HEADER:
            raise _refused(self.source, f"its member {member[:60]!r} lies at byte {info.header_offset:,}")
        header = self.source.read(info.header_offset, LOCAL_HEADER)
        names, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        return info.header_offset + LOCAL_HEADER + names + extra


def open_pickled(source: Bytes) -> PickledFile:
    """Read the table of tensors; raises ModelError for anything else that the pickle wants."""
    try:
        archive = zipfile.ZipFile(io.BufferedReader(_File(source), BUFFER))
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        data = _table(archive, name, source)
    except NO_ARCHIVE:
        raise _refused(source, "it is no archive of the kind that torch.save has written since 1.6") from None
    try:
        _check_sizes(data)
        tensors = _Tensors(data, source).load()
    except NO_PICKLE as error:
        raise _refused(source, str(error)[:200] or type(error).__name__) from None
    if not isinstance(tensors, dict):
        raise _refused(source, "it holds no table of tensors")
    stored = {
        key: value for key, value in tensors.items() if isinstance(key, str) and isinstance(value, Pickled)
    }
    return PickledFile(source, stored, name.removesuffix("data.pkl"), archive)


def _table(archive: zipfile.ZipFile, name: str, source: Bytes) -> bytes:
    """The pickle; torch.save compresses nothing, and what is compressed may be of any size."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise _refused(source, f"its member {name[:60]!r} is compressed")
    if info.file_size > LARGEST_PICKLE:
        raise _refused(source, "its table is too large")
    return archive.read(name)


def _check_sizes(data: bytes) -> None:
    """Refuse a table that is small, and of which something large would be made; walks it as an unpickler does.

    For each value on the stack its size is kept, 1 for all that is no tuple; 0 is a mark.
    """
    stack: list[int] = []
    memo: dict[object, int] = {}
    for opcode, number, _ in pickletools.genops(data):
        if opcode.name in SETS:
            raise ValueError("its pickle has a set, which no table of tensors needs")
        if opcode.name in PUT:
            if isinstance(number, int) and number > len(data):
                raise ValueError(f"its pickle wants room for {number:,} values")
            memo[len(memo) if number is None else number] = stack[-1]
            continue
        taken = _take(stack, opcode)
        if opcode.name in GET:
            stack.append(memo[number])
        elif opcode.name in TUPLES:
            stack.append(1 + sum(taken))
        else:
            stack += [0 if each is pickletools.markobject else 1 for each in opcode.stack_after]
        if opcode.name == "DUP" or (stack and stack[-1] > LARGEST_TUPLE):
            raise ValueError(
                f"its pickle has a tuple of more than {LARGEST_TUPLE} values, or says something twice"
            )


def _take(stack: list[int], opcode: pickletools.OpcodeInfo) -> list[int]:
    """Take off the stack what an opcode takes: some values, or all down to a mark and as many below."""
    before, taken = list(opcode.stack_before), []
    if pickletools.markobject in before or (opcode.name == "POP" and stack and not stack[-1]):
        before = before[: before.index(pickletools.markobject)] if len(before) > 1 else []
        while value := stack.pop():
            taken.append(value)
    return taken + [stack.pop() for _ in before]


def _refused(source: Bytes, reason: str) -> ModelError:
    return ModelError(
        f"{source.name} is refused: {reason}.",
        "Use a checkpoint in safetensors, or one that holds tensors only.",
    )


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def _rebuild(storage: Any, offset: Any, shape: Any, stride: Any, *_ignored: Any) -> Pickled:  # noqa: ANN401
    if not isinstance(storage, Storage) or not are_sizes([offset]):
        raise TypeError("a tensor in it lies nowhere")
    return Pickled(storage, offset, _sizes(shape), _sizes(stride))


def _sizes(values: Any) -> tuple[int, ...]:  # noqa: ANN401
    if not are_sizes(values):
        raise TypeError("a tensor in it has a shape or stride that is none")
    return tuple(values)


def _parameter(tensor: Any, *_ignored: Any) -> Pickled:  # noqa: ANN401
    if not isinstance(tensor, Pickled):
        raise TypeError(f"a parameter in it is a {type(tensor).__name__}")
    return tensor


class _Table(dict[Any, Any]):
    """Stands for an OrderedDict, which torch fills item by item; its attributes count for nothing."""

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        pass


KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _Table,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _Tensors(pickle.Unpickler):
    def __init__(self, data: bytes, source: Bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._source = source

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - the unpickler's own face
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        if module == "torch" and name.endswith("Storage"):
            return name  # stands for the type, and can't be called
        raise _refused(self._source, f"its pickle asks for {module}.{name}, which is no tensor"[:200])

    def persistent_load(self, pid: Any) -> Storage:  # noqa: ANN401 - the unpickler's own face
        said = pid[:3]
        if not all(isinstance(each, str) for each in said):
            raise _refused(self._source, "its pickle asks for something without a name")
        kind, type_name, key = said
        if kind != "storage":
            raise _refused(self._source, f"its pickle asks for {kind[:60]!r}")
        return Storage(STORAGES.get(type_name), key)


class _File(io.RawIOBase):
    """A source as a seekable file, for zipfile."""

    def __init__(self, source: Bytes) -> None:
        self._source, self._at = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        length = max(0, min(len(buffer), self._source.size - self._at))
        if length:
            buffer[:length] = self._source.read(self._at, length)
        self._at += length
        return length
