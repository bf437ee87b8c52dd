"""PRM heads as side-cars: a safetensors file with a few dense layers and what they belong to.

A GGUF can't carry such a head (llama.cpp refuses tensors that it does not know). No pickle, no torch.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from rsd_cli.errors import DISK_FULL, ModelError, ResourceError, UsageError
from rsd_cli.rewards.features import FEATURES
from rsd_cli.rewards.tensors import open_tensors, packed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from rsd_cli.rewards.tensors import TensorFile

Activation = Literal["sigmoid", "softmax"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)
LARGEST = 300_000_000  # bytes; the largest published head has 130 MB in float16
MOST_LAYERS = 4
HIDDEN = "hidden"  # the input that is the state, n_embd values
INPUTS = {"value-head": {HIDDEN}, "draft-head": {HIDDEN, *FEATURES}}  # what a family gives to its heads
FORMAT = "rsd-head"  # in the metadata
FACT = "fact."


@dataclass(frozen=True)
class Layer:
    """weight [out, in] and bias [out], float32."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """Dense layers with ReLU between them, over `inputs`: the hidden state (n_embd values), then features.

    sigmoid: of one output. softmax: the summed shares of `classes` (PURE's p1 - p0 is 2 p1 - 1, so p1 orders
    the same). `shift` and `scale` standardise the inputs; `calibration` are Platt's a and b on the logit. `n_vocab`
    is how many tokens the model knows that it was made for, 0 where that is not known.
    """

    family: str
    activation: Activation
    hidden_size: int
    layers: tuple[Layer, ...]
    classes: tuple[int, ...] = (0,)
    separator: str = ""
    base: str = ""
    base_sha256: str = ""
    n_vocab: int = 0
    inputs: tuple[str, ...] = (HIDDEN,)
    shift: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None
    calibration: tuple[float, float] = (1.0, 0.0)
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_zero(self) -> bool:
        """Whether a layer's weights are all zero, so that it scores everything the same."""
        return not all(layer.weight.any() for layer in self.layers)

    def reward(self, inputs: NDArray[np.float32]) -> float:
        """The reward in [0, 1] of one step's inputs [d]; NaN where they are not finite."""
        values: NDArray[np.floating] = np.asarray(inputs, np.float64)
        if self.shift is not None and self.scale is not None:
            values = (values - self.shift) / self.scale
        for i, layer in enumerate(self.layers):
            values = layer.weight @ (np.maximum(values, 0) if i else values) + layer.bias
        if not np.isfinite(values).all():
            return float("nan")
        return self._share(values)

    def _share(self, outputs: NDArray[np.floating]) -> float:
        if self.activation == "softmax":
            shares = np.exp(outputs - outputs.max())
            return float(shares[list(self.classes)].sum() / shares.sum())
        a, b = self.calibration
        return float(0.5 * (1 + np.tanh((a * outputs[self.classes[0]] + b) / 2)))

    def check_fits(self, n_embd: int, n_vocab: int, name: str) -> None:
        """Refuse a model whose hidden states this head was not made for."""
        if self.hidden_size != n_embd:
            raise ModelError(
                f"The head is made for hidden states of {self.hidden_size:,} values, {name} has {n_embd:,}.",
                f"Use it with {self.base or 'the model that it was made for'}.",
            )
        if self.n_vocab not in {0, n_vocab}:
            raise ModelError(
                f"The head is made for a model of {self.n_vocab:,} tokens, {name} has {n_vocab:,}.",
                f"Use it with {self.base or 'the model that it was made for'}.",
            )

    def check_file(self, sha256: str, name: str) -> None:
        """Refuse another file than the one that this head was made for, where it knows one."""
        if self.base_sha256 and self.base_sha256 != sha256:
            raise ModelError(
                f"The head was made for {self.base} with the hash {self.base_sha256[:12]}…, "
                f"{name} has {sha256[:12]}….",
                "Train or import a head for this file.",
            )

    def save(self, path: Path) -> None:
        """Write the side-car; a file of that name is replaced at once or not at all."""
        tensors = {
            f"{i}.{key}": getattr(layer, key)
            for i, layer in enumerate(self.layers)
            for key in ("weight", "bias")
        }
        tensors |= {key: value for key in ("shift", "scale") if (value := getattr(self, key)) is not None}
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            fresh.write_bytes(packed(tensors, self._metadata()))
            fresh.replace(path)
        except OSError as error:
            told = f"{path} can't be written: {error.strerror}."
            if error.errno in DISK_FULL:
                raise ResourceError(told, "Free some space, or name a file on another disk.") from error
            raise UsageError(told, "Name another file.") from error
        finally:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)  # there only if it did not become the file

    def _metadata(self) -> dict[str, str]:
        return {
            "format": FORMAT,
            "family": self.family,
            "activation": self.activation,
            "classes": ",".join(map(str, self.classes)),
            "hidden_size": str(self.hidden_size),
            "separator": self.separator,
            "base": self.base,
            "base_sha256": self.base_sha256,
            "inputs": ",".join(self.inputs),
            "calibration": ",".join(map(repr, self.calibration)),
            **({"n_vocab": str(self.n_vocab)} if self.n_vocab else {}),
        } | {FACT + key: value for key, value in self.facts.items()}


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine, to read ranges of."""

    path: Path

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size

    def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes."""
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(length)


def load_head(path: Path) -> Head:
    """Read a side-car; raises ModelError for anything that is not one, with what is wrong."""
    try:
        if path.stat().st_size > LARGEST:
            raise ModelError(f"{path} has {path.stat().st_size:,} bytes, too many for a head.")
        return _head(open_tensors(LocalFile(path)), path)
    except OSError as error:
        raise ModelError(f"The head {path} can't be read: {error.strerror}.", "Check its path.") from error


def is_head(path: Path) -> bool:
    """Whether this is a side-car of ours."""
    try:
        return open_tensors(LocalFile(path)).metadata.get("format") == FORMAT
    except (OSError, ModelError):
        return False


def _head(file: TensorFile, path: Path) -> Head:
    said = file.metadata
    try:
        activation = said["activation"]
        head = Head(
            family=said["family"],
            activation="softmax" if activation == "softmax" else "sigmoid",
            hidden_size=int(said["hidden_size"]),
            layers=_layers(file, path),
            classes=tuple(int(part) for part in said["classes"].split(",")),
            separator=said["separator"],
            base=said["base"],
            base_sha256=said["base_sha256"],
            n_vocab=int(said.get("n_vocab", "0")),
            inputs=tuple(said["inputs"].split(",")),
            shift=file.tensor("shift") if "shift" in file.stored else None,
            scale=file.tensor("scale") if "scale" in file.stored else None,
            calibration=_pair(said["calibration"]),
            facts={key.removeprefix(FACT): value for key, value in said.items() if key.startswith(FACT)},
        )
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{path} is no head: its metadata lacks or garbles {error}.", "Make it again."
        ) from None
    if activation not in ACTIVATIONS:
        raise ModelError(f"{path} has the activation {activation!r}.", f"Known are {', '.join(ACTIVATIONS)}.")
    check_head(head, str(path))
    return head


def _pair(text: str) -> tuple[float, float]:
    a, b = text.split(",")
    return float(a), float(b)


def _layers(file: TensorFile, path: Path) -> tuple[Layer, ...]:
    count = sum(name.endswith(".weight") for name in file.stored)
    known = {f"{i}.{key}" for i in range(count) for key in ("weight", "bias")} | {"shift", "scale"}
    strange = sorted(file.stored.keys() - known)
    if strange or count > MOST_LAYERS:
        what = f"the tensor {strange[0][:60]!r}" if strange else f"{count} layers"
        raise ModelError(f"{path} holds {what}, which no head has.", "Make it again.")
    return tuple(Layer(file.tensor(f"{i}.weight"), file.tensor(f"{i}.bias")) for i in range(count))


def check_head(head: Head, name: str) -> None:
    """Inputs that its family has, shapes that follow from each other, and finite numbers; `name` says whose."""
    _check_inputs(head, name)
    _check_shapes(head, name)
    numbers = [array for layer in head.layers for array in (layer.weight, layer.bias)]
    numbers += [array for array in (head.shift, head.scale) if array is not None]
    numbers.append(np.array(head.calibration, np.float32))
    if not all(np.isfinite(tensor).all() for tensor in numbers):
        raise ModelError(f"{name} holds NaN or infinite weights.", "Make or download it again.")


def _check_inputs(head: Head, name: str) -> None:
    known = INPUTS.get(head.family)
    if known is None:
        raise ModelError(
            f"{name} is a head of the family {head.family[:60]!r}.", f"Known are {', '.join(INPUTS)}."
        )
    strange = [each for each in head.inputs if each not in known or head.inputs.count(each) > 1]
    if strange:
        raise ModelError(
            f"{name} reads {strange[0][:60]!r}, which a {head.family} can't be given.", "Make it again."
        )


def _check_shapes(head: Head, name: str) -> None:
    width = head.hidden_size * (HIDDEN in head.inputs) + sum(each != HIDDEN for each in head.inputs)
    for layer in head.layers:
        if (
            layer.weight.ndim != 2
            or layer.weight.shape[1] != width
            or layer.bias.shape != layer.weight.shape[:1]
        ):
            raise ModelError(
                f"{name} has a layer of the shape {layer.weight.shape} where {width} inputs come."
            )
        width = layer.weight.shape[0]
    if not head.layers or not _are_classes(head.classes, width, head.activation):
        raise ModelError(f"{name} reads the classes {head.classes} of {width} outputs by {head.activation}.")
    _check_standards(head, name)


def _are_classes(classes: tuple[int, ...], outputs: int, activation: Activation) -> bool:
    """Whether a reward of them can be any: a sigmoid reads its only output, a softmax some of its outputs."""
    if activation == "sigmoid":
        return outputs == 1 and classes == (0,)
    distinct = set(classes)
    return 0 < len(classes) == len(distinct) < outputs and distinct <= set(range(outputs))


def _check_standards(head: Head, name: str) -> None:
    if (head.shift is None) != (head.scale is None):
        raise ModelError(f"{name} has one of shift and scale without the other.", "Make it again.")
    if head.shift is None or head.scale is None:
        return
    if not head.shift.shape == head.scale.shape == head.layers[0].weight.shape[1:]:
        raise ModelError(f"{name} standardises another number of inputs than its layers have.")
    if not (head.scale > 0).all():
        raise ModelError(f"{name} has a scale that is not above zero.", "Make it again.")
