"""Heads as they are published: which tensors of a checkpoint are the head, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rsd_cli.errors import ModelError
from rsd_cli.rewards.heads import Head, Layer, check_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rsd_cli.rewards.checkpoints import Checkpoint
    from rsd_cli.rewards.heads import Activation


@dataclass(frozen=True)
class Published:
    """A layout: dense layers by name, outputs, and what is read of them; `layout` is its name in models.yaml.

    Where models differ in their separators, `by_name` has those that are known, by a part of a repository's name;
    `separator` is a guess for the others.
    """

    models: str
    layout: str
    layers: tuple[str, ...]
    outputs: int
    activation: Activation
    classes: tuple[int, ...]
    separator: str
    by_name: Mapping[str, str] = field(default_factory=dict)

    def separator_of(self, name: str) -> str | None:
        """The separator of a checkpoint, None where it can only be guessed."""
        known = (text for part, text in self.by_name.items() if part in name.lower())
        return next(known, None if self.by_name else self.separator)


STEPWISE = {  # as their cards and training code have it
    "qwen2-0.5b-reward-math-sheperd": "\n",
    "qwen2.5-0.5b-math-shepherd-prm-0.2": "\n\n",
    "qwen2.5-math-1.5b-instruct-prm-0.2": "\n\n",
    "qwen2.5-math-7b-instruct-prm-0.2": "\n\n",
    "pure-prm": "\n\n",
}
PUBLISHED = (
    Published("Skywork-o1-Open-PRM", "skywork", ("v_head.summary",), 1, "sigmoid", (0,), "\n"),
    Published(
        "Qwen2.5-Math-PRM, ReasonFlux-PRM-7B",
        "qwen-prm",
        ("score.0", "score.2"),
        2,
        "softmax",
        (1,),
        "<extra_0>",
    ),
    Published("TRL's stepwise models, PURE", "trl", ("score",), 2, "softmax", (1,), "\n", STEPWISE),
    Published("ReasonEval", "reasoneval", ("score_head",), 3, "softmax", (1, 2), ""),
    Published("one score per token", "trl", ("score",), 1, "sigmoid", (0,), "\n", STEPWISE),
)
PREFIXES = ("", "model.", "base_model.model.", "module.")
GUESSED = "separator guessed"


def take_head(checkpoint: Checkpoint, base: str = "", separator: str | None = None) -> Head:
    """The head of a checkpoint in one of the published layouts; raises ModelError with what there is instead."""
    names = set(checkpoint.places)
    for layout in PUBLISHED:
        for prefix in PREFIXES:
            if all(f"{prefix}{layer}.weight" in names for layer in layout.layers):
                layers = tuple(_layer(checkpoint, f"{prefix}{layer}", names) for layer in layout.layers)
                if len(layers[-1].bias) == layout.outputs:
                    head = _head(checkpoint, layout, layers, base, separator)
                    check_head(head, f"The head of {checkpoint.files.name}")
                    return head
    outside = sorted(name for name in names if "layers." not in name and "embed" not in name)[:6]
    raise ModelError(
        f"{checkpoint.files.name} has no head in a published layout; beside its layers it has "
        f"{', '.join(outside) or 'nothing'}.",
        "A PRM that answers with its vocabulary needs no head: use the family marker.",
    )


def layout_of(head: Head) -> str:
    """The name in models.yaml of the layout that the model of a taken head reads."""
    return next(known.layout for known in PUBLISHED if known.models == head.facts["layout"])


def separator_was_guessed(head: Head) -> bool:
    """Whether nobody said what ends a step of this head's model."""
    return GUESSED in head.facts


def has_head(checkpoint: Checkpoint) -> bool:
    """Whether there is anything that a published head could be; a marker PRM has none."""
    return any("score" in name or "v_head" in name for name in checkpoint.places)


def _layer(checkpoint: Checkpoint, name: str, names: set[str]) -> Layer:
    weight = checkpoint.tensor(f"{name}.weight")
    if weight.ndim != 2:
        raise ModelError(
            f"{name}.weight of {checkpoint.files.name} has the shape {weight.shape}, not two sizes."
        )
    bias = checkpoint.tensor(f"{name}.bias") if f"{name}.bias" in names else np.zeros(len(weight), np.float32)
    if bias.shape != weight.shape[:1]:
        raise ModelError(
            f"{name} of {checkpoint.files.name} has {len(weight):,} outputs and a bias of the shape {bias.shape}."
        )
    return Layer(weight, bias)


def _head(
    checkpoint: Checkpoint, layout: Published, layers: tuple[Layer, ...], base: str, separator: str | None
) -> Head:
    name = checkpoint.files.name
    known = layout.separator_of(name) if separator is None else separator
    facts = {"layout": layout.models} | ({GUESSED: "yes"} if known is None else {})
    facts |= {"commit": commit} if (commit := checkpoint.files.commit) else {}
    return Head(
        family="value-head",
        activation=layout.activation,
        hidden_size=layers[0].weight.shape[1],
        layers=layers,
        classes=layout.classes,
        separator=layout.separator if known is None else known,
        base=base or name,
        n_vocab=checkpoint.n_vocab,
        facts=facts,
    )
