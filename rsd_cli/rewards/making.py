"""From a PRM's description to the reader of its family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsd_cli.errors import ModelError
from rsd_cli.rewards.draft_head import DraftHead
from rsd_cli.rewards.heads import load_head
from rsd_cli.rewards.judge import Judge
from rsd_cli.rewards.marker import Marker
from rsd_cli.rewards.value_head import ValueHead

if TYPE_CHECKING:
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.templates import ChatTemplate
    from rsd_cli.rewards.families import Reader
    from rsd_cli.rewards.heads import Head
    from rsd_cli.rewards.spec import PrmSpec


def make_reader(
    spec: PrmSpec, model: Model, template: ChatTemplate, system: str, head: Head | None
) -> Reader:
    """The family of a PRM that reads with a model; `system` is what its draft is prompted with."""
    if spec.family == "judge":
        return Judge(model, template)
    if spec.family == "marker":
        return Marker(model, template, spec.layout)
    if spec.family == "genprm-direct":
        return Marker(model, template, spec.family)
    if head is None:
        raise ModelError(
            f"PRM {spec.name} has no head.", "Take one out of its checkpoint with `rsd prm import`."
        )
    if spec.family == "draft-head":
        return DraftHead(model, template, head, system)
    return ValueHead(model, template, head, spec.layout, spec.separator)


def head_of(spec: PrmSpec) -> Head | None:
    """The head of a PRM that has one; raises ModelError if it is no head, or one of another family."""
    if spec.head is None:
        return None
    head = load_head(spec.head)
    if head.family != spec.family:
        raise ModelError(f"{spec.head} is a head of the family {head.family}, {spec.name} of {spec.family}.")
    return head
