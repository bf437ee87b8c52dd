"""The backbone of a reward checkpoint as a GGUF, described by the GGUF of the model that it was fine-tuned from.

Names by the `gguf` package's map, layouts as llama.cpp's own converter writes them: matrices as 16-bit floats, for
its quantizer to go on with. Heads stay out (see published.py), and nothing is executed of a checkpoint.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rsd_cli.errors import ModelError, UsageError
from rsd_cli.rewards.published import has_head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gguf import GGUFReader, GGUFWriter
    from numpy.typing import NDArray

    from rsd_cli.rewards.checkpoints import Checkpoint

ARCHITECTURES = ("llama", "qwen2", "qwen3")  # Mistral's GGUFs are of the architecture llama
PREFIXES = ("pretrained_model.", "base_model.model.", "module.")
OUTPUT, EMBEDDINGS = (
    "output.weight",
    "token_embd.weight",
)  # llama.cpp reads the second where the first is missing
OF_THE_BASE = re.compile(r"rope_(freqs|factors_\w+)\.weight")  # constants that no checkpoint holds
# what is of the base's file and not of its model: how it lies there, how it was quantized
NOT_TAKEN_OVER = re.compile(
    r"(GGUF|split|quantize)\..*|general\.(architecture|alignment|file_type|quantization_version|name)"
)


@dataclass(frozen=True)
class Base:
    """What is taken over of the base model's GGUF: everything but its weights."""

    path: Path
    reader: GGUFReader
    architecture: str

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors that a checkpoint has to bring, rows first."""
        return {
            tensor.name: tuple(int(size) for size in reversed(tensor.shape))
            for tensor in self.reader.tensors
            if not OF_THE_BASE.fullmatch(tensor.name)
        }

    @property
    def size(self) -> int:
        """Bytes of its weights as `convert` writes them."""
        return sum(map(_n_bytes, self.shapes.values()))

    @property
    def is_tied(self) -> bool:
        """Whether its logits come from the input embeddings; a file may hold these twice, quantized in two ways."""
        tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        if OUTPUT not in tensors:
            return True
        some = slice(None, None, 1 + len(tensors[OUTPUT].data) // 100)
        one, other = (
            _gguf().dequantize(tensors[name].data[some], tensors[name].tensor_type)
            for name in (OUTPUT, EMBEDDINGS)
        )
        return bool(np.abs(one - other).mean() < np.abs(one).mean() / 4)

    def number(self, key: str) -> int:
        """A hyperparameter of the architecture."""
        field = self.reader.get_field(f"{self.architecture}.{key}")
        if field is None:
            raise ModelError(f"{self.path} does not say {self.architecture}.{key}.")
        return int(field.contents())


def open_base(path: Path) -> Base:
    """Read the base's header; raises ModelError where it is of no use as one."""
    reader = _gguf().GGUFReader(path)
    field = reader.get_field("general.architecture")
    architecture = str(field.contents()) if field is not None else "nothing"
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{path} is of the architecture {architecture}; known here are {', '.join(ARCHITECTURES)}."
        )
    if (parts := reader.get_field("split.count")) is not None and int(parts.contents()) > 1:
        raise ModelError(f"{path} is one of {parts.contents()} parts.", "Name a base that is one file.")
    return Base(path, reader, architecture)


def convert(checkpoint: Checkpoint, base: Base, output: Path, told: Callable[[str], None]) -> None:
    """Write the checkpoint's backbone to `output`, tensor by tensor; `told` gets the name of each.

    Raises ModelError if the checkpoint is of another shape than the base, before anything is written.
    """
    sources = matched(checkpoint, base)
    writer = _gguf().GGUFWriter(output, base.architecture)
    try:
        _take_over(base, writer)
        for name in sources:
            writer.add_tensor_info(
                name, base.shapes[name], _dtype(base.shapes[name]), _n_bytes(base.shapes[name])
            )
        constants = [tensor for tensor in base.reader.tensors if OF_THE_BASE.fullmatch(tensor.name)]
        for tensor in constants:
            writer.add_tensor_info(tensor.name, tensor.data.shape, tensor.data.dtype, tensor.data.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, source in sources.items():
            writer.write_tensor_data(_as_stored(checkpoint.tensor(source), name, base))
            told(name)
        for tensor in constants:
            writer.write_tensor_data(np.asarray(tensor.data))
    finally:
        with suppress(OSError):  # a full disk was told already
            writer.close()


def sizes(checkpoint: Checkpoint, base: Base) -> dict[str, int]:
    """The bytes of each tensor that `convert` will write, by name."""
    return {name: _n_bytes(base.shapes[name]) for name in matched(checkpoint, base)}


def matched(checkpoint: Checkpoint, base: Base) -> dict[str, str]:
    """For each tensor of the base the checkpoint's name of it, checked for its shape; raises ModelError."""
    shapes, stored = base.shapes, checkpoint.shapes()
    found = _named(stored, base)
    ours, theirs = base.number("block_count"), _n_blocks(found)
    if ours != theirs:
        raise _does_not_fit(checkpoint, base, f"has {theirs} layers", ours)
    for name, source in found.items():
        if name in shapes and stored[source] != shapes[name]:
            raise _does_not_fit(checkpoint, base, f"holds {source} as {stored[source]}", shapes[name])
    missing = [name for name in shapes if name not in found]
    if OUTPUT in missing and (has_head(checkpoint) or base.is_tied):
        missing.remove(OUTPUT)
    if missing:
        raise ModelError(
            f"{checkpoint.files.name} has no tensor for {missing[0]} ({len(missing)} missing), "
            f"which {base.path.name} has."
        )
    return {name: found[name] for name in shapes if name in found}


def _does_not_fit(checkpoint: Checkpoint, base: Base, what: str, ours: object) -> ModelError:
    return ModelError(
        f"{checkpoint.files.name} {what}, {base.path.name} has {ours}.",
        "Name as --base the model that it was fine-tuned from.",
    )


def _named(stored: Mapping[str, object], base: Base) -> dict[str, str]:
    """The checkpoint's backbone tensors under their GGUF names."""
    gguf = _gguf()
    architecture = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[base.architecture]
    # one layer more than any base has, so that a deeper checkpoint is seen
    names = gguf.get_tensor_name_map(architecture, 1 + max(map(_block, stored), default=0))
    found = {}
    for source in stored:
        plain = source
        for prefix in PREFIXES:
            plain = plain.removeprefix(prefix)
        name = names.get_name(plain, try_suffixes=(".weight", ".bias"))
        if name is not None:
            found[name] = source
    return found


def _block(source: str) -> int:
    found = re.search(r"\blayers\.(\d{1,4})\.", source)
    return int(found[1]) if found else 0


def _n_blocks(found: Mapping[str, str]) -> int:
    return 1 + max((int(name.split(".")[1]) for name in found if name.startswith("blk.")), default=-1)


def _dtype(shape: tuple[int, ...]) -> np.dtype[Any]:
    """Norms and biases stay in single precision, as llama.cpp wants them."""
    return np.dtype(np.float16 if len(shape) > 1 else np.float32)


def _n_bytes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape)) * _dtype(shape).itemsize


def _as_stored(values: NDArray[np.float32], name: str, base: Base) -> NDArray[Any]:
    if base.architecture == "llama" and re.search(r"attn_[qk]\.", name):
        heads = base.number("attention.head_count" + ("_kv" if "attn_k." in name else ""))
        values = interleaved(values, heads)
    limit = np.finfo(_dtype(values.shape)).max
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > limit:
        raise ModelError(f"Tensor {name} has values that are not finite or beyond {limit:g}.")
    return values.astype(_dtype(values.shape))


def interleaved(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of each head with its two halves interleaved: Hugging Face rotates halves, llama.cpp's llama pairs."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    rows: NDArray[np.float32] = halves.swapaxes(1, 2).reshape(values.shape)
    return rows


def _take_over(base: Base, writer: GGUFWriter) -> None:
    """Hyperparameters and tokenizer of the base; no empty lists, which the writer refuses."""
    gguf = _gguf()
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for field in base.reader.fields.values():
        value = field.contents()
        if value != [] and not NOT_TAKEN_OVER.fullmatch(field.name):
            kind, inner = field.types[0], field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, value, kind, inner)


def _gguf() -> Any:  # noqa: ANN401  # an optional package; its types are checked where it is installed
    try:
        import gguf
    except ImportError:
        raise UsageError("Converting needs the package gguf.", "pip install 'rsd-cli[convert]'") from None
    return gguf
