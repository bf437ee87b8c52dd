"""The registry: everything that models.yaml files declare, found by name.

Reads no files; what is no declared name is left to `references`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsd_cli.errors import UsageError
from rsd_cli.registry import references
from rsd_cli.registry.entries import PrmEntry
from rsd_cli.registry.names import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rsd_cli.registry.entries import ModelEntry, TrioEntry

JUDGE_THRESHOLD = 0.7
HEAD_THRESHOLD = 0.5  # more likely good than not: what `rsd prm train` makes is a probability


@dataclass(frozen=True)
class Registry:
    """Models, reward models and trios by name."""

    models: dict[str, ModelEntry]
    prms: dict[str, PrmEntry]
    trios: dict[str, TrioEntry]

    @property
    def names(self) -> list[str]:
        """Every declared name."""
        return [*self.trios, *self.models, *self.prms]

    def model(self, name: str, *, offline: bool = False) -> ModelEntry:
        """A declared model, a GGUF file on this machine, or a file of a Hugging Face repository."""
        if name in self.models:
            return self.models[name]
        if references.looks_like_one(name):
            return references.resolve(name, offline=offline)
        raise _unknown("model", name, self.models)

    def prm(self, name: str, *, offline: bool = False) -> PrmEntry:
        """A declared reward model; any other model becomes a judge."""
        if name in self.prms:
            return self.prms[name]
        if name in self.models or references.looks_like_one(name):
            return _judge(self.model(name, offline=offline).name, name)
        raise _unknown("reward model", name, [*self.prms, *self.models])

    def lasting(self, name: str) -> str:
        """The name of a model or reward model as it means the same in every directory."""
        return name if name in self.models or name in self.prms else references.lasting(name)

    def trio(self, name: str) -> TrioEntry:
        """A declared trio."""
        if name not in self.trios:
            raise _unknown("trio", name, self.trios)
        return self.trios[name]

    def models_of(self, name: str, *, offline: bool = False) -> list[ModelEntry]:
        """The model files that a trio, a reward model or a model needs, each once."""
        if name in self.trios:
            entries = [self.model(model, offline=offline) for model in self.needs(name)]
            return list({entry.file_name: entry for entry in entries}.values())
        if name in self.prms:
            model = self.prms[name].model
            return [self.model(model, offline=offline)] if model else []
        if name in self.models or references.looks_like_one(name):
            return [self.model(name, offline=offline)]
        raise _unknown("model, reward model or trio", name, self.names)

    def trios_with(self, model: str) -> list[str]:
        """The trios that need a declared model."""
        return [trio for trio in self.trios if model in self.needs(trio)]

    def needs(self, trio_name: str) -> list[str]:
        """The models that a trio needs, each once, as they are named there."""
        trio = self.trio(trio_name)
        prm = self.prms.get(trio.prm)
        names = (trio.draft, trio.target, prm.model if prm else trio.prm)
        return list(dict.fromkeys(name for name in names if name))


def _judge(name: str, model: str) -> PrmEntry:
    """A path is no valid name for an entry, so this one is built without the check."""
    return PrmEntry.model_construct(
        name=name, family="judge", model=model, layout=None, head=None, separator=None,
        threshold=JUDGE_THRESHOLD, calibrated_on="not calibrated",
    )  # fmt: skip


def head_on(model: str, head: str) -> PrmEntry:
    """A head that nobody declared, by its file, on the hidden states of a model."""
    return PrmEntry.model_construct(
        name=head, family="draft-head", model=model, layout=None, head=head, separator=None,
        threshold=HEAD_THRESHOLD, calibrated_on="not calibrated",
    )  # fmt: skip


def _unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    return UsageError(f"No {what} is called {name!r}.", _next_step(name, known))


def _next_step(name: str, known: Iterable[str]) -> str:
    hint = suggestion(name, known)
    return f"{hint[:1].upper()}{hint[1:]} (rsd models list)".strip()
