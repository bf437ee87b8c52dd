"""models.yaml files, laid over each other: of two entries of one name the one from the earlier file wins.

Turns what is wrong with an entry into one sentence with file, line and column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from rsd_cli.errors import UsageError
from rsd_cli.records import ROLES
from rsd_cli.registry import references, strictyaml
from rsd_cli.registry.entries import (
    ConvertSource,
    HubSource,
    ModelEntry,
    PathSource,
    PrmEntry,
    Sampling,
    TrioEntry,
    UrlSource,
    WheelMember,
    WheelSource,
)
from rsd_cli.registry.files import registry_files
from rsd_cli.registry.names import RULE, is_valid_name, nearest
from rsd_cli.registry.schema import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from rsd_cli.registry.strictyaml import Document, Keys

SECTIONS = ("models", "prms", "trios")
Entry = TypeVar("Entry", ModelEntry, PrmEntry, TrioEntry)
_SOURCES = (HubSource, WheelSource, WheelMember, PathSource, UrlSource)


@dataclass(frozen=True)
class _Reference:
    """An entry's mention of another one, and where it stands; `made` is the model that is converted with it."""

    at: str
    name: str
    what: Literal["model", "prm"]
    made: str | None = None


def load_registry(models_file: Path | None = None) -> Registry:
    """All declared entries; see `files.registry_files` for where they are looked for."""
    registry = Registry({}, {}, {})
    mentions: list[_Reference] = []
    for path in registry_files(models_file):
        _add(strictyaml.read(path), registry, mentions)
    _check_references(registry, mentions)
    return registry


def _add(document: Document, registry: Registry, mentions: list[_Reference]) -> None:
    sections = _sections(document)
    models = _add_entries(document, "models", sections, ModelEntry, registry.models)
    for model in models:
        mentions.extend(_bases(document, model))
    prms = _add_entries(document, "prms", sections, PrmEntry, registry.prms)
    registry.prms.update({prm.name: prm.declared_in(document.path) for prm in prms})
    trios = _add_entries(document, "trios", sections, TrioEntry, registry.trios)
    mentions.extend(_mention(document, "prms", prm.name, "model", prm.model) for prm in prms if prm.model)
    for role in ROLES:
        mentions.extend(_mention(document, "trios", t.name, role, getattr(t, role)) for t in trios)


def _bases(document: Document, model: ModelEntry) -> Iterator[_Reference]:
    for index, source in enumerate(model.sources):
        if isinstance(source, ConvertSource):
            place = document.at(("models", model.name, "sources", index, "base"))
            yield _Reference(place, source.base, "model", model.name)


def _mention(document: Document, section: str, entry: str, key: str, name: str) -> _Reference:
    what: Literal["model", "prm"] = "prm" if key == "prm" else "model"
    return _Reference(document.at((section, entry, key)), name, what)


def _sections(document: Document) -> dict[str, Any]:
    if not isinstance(document.data, dict):
        raise UsageError(f"{document.at(())}: not a mapping.", f"Write sections: {', '.join(SECTIONS)}.")
    for key in document.data:
        if key not in SECTIONS:
            _unknown_key(document, (key,), SECTIONS)
    return document.data


def _add_entries(
    document: Document, section: str, sections: Mapping[str, Any], kind: type[Entry], known: dict[str, Entry]
) -> list[Entry]:
    """Every entry of a section is checked, also one that an earlier file replaces."""
    declared = sections.get(section) or {}
    if not isinstance(declared, dict):
        raise UsageError(f"{document.at((section,))}: {section} is not a mapping.", "Write NAME: {...}.")
    entries = [_entry(document, (section, name), kind, fields) for name, fields in declared.items()]
    added = [entry for entry in entries if entry.name not in known]
    known.update({entry.name: entry for entry in added})
    return added


def _entry(document: Document, keys: Keys, kind: type[Entry], fields: Any) -> Entry:  # noqa: ANN401
    name = str(keys[-1])
    if not is_valid_name(name):
        raise UsageError(
            f"{document.at(keys)}: {name[:40]!r} is not a valid name.", f"Choose another: {RULE}."
        )
    if not isinstance(fields, dict):
        raise UsageError(f"{document.at(keys)}: {name} is not a mapping.", "Indent its keys below the name.")
    for key in fields:
        if key not in _keys_of(kind):
            _unknown_key(document, (*keys, key), _keys_of(kind))
    try:
        return kind.model_validate({**fields, "name": name})
    except ValidationError as error:
        _refuse(document, keys, kind, _most_telling(error))


def _most_telling(error: ValidationError) -> ErrorDetails:
    """A misspelled key also makes the right one missing: the misspelling is the news."""
    errors = error.errors(include_url=False)
    return min(errors, key=lambda one: one["type"] != "extra_forbidden")


def _keys_of(kind: type[BaseModel]) -> list[str]:
    hidden = {"name", "reference", "shard", "further_shards"}
    return [key for key in kind.model_fields if key not in hidden]


def _refuse(document: Document, keys: Keys, kind: type[BaseModel], error: ErrorDetails) -> NoReturn:
    """One pydantic error, said in the words of the file."""
    keys = _in_file(document, keys, error["loc"])
    if error["type"] == "extra_forbidden":
        inner = _SOURCES if "sources" in keys else (Sampling,) if "sampling" in keys else (kind,)
        _unknown_key(document, keys, [key for model in inner for key in model.model_fields])
    field, spelling = str(keys[-1]), document.place(keys).spelling
    if error["type"] == "string_type" and spelling:
        raise UsageError(
            f"{document.at(keys)}: {field}: YAML does not read {spelling[:70]} as text.",
            f'Quote it: {field}: "{spelling[:70]}"',
        )
    problem = str(error.get("ctx", {}).get("error", error["msg"]))
    value = f" ({spelling[:70]})" if spelling and spelling[:40] not in problem else ""
    raise UsageError(f"{document.at(keys)}: {field}: {problem}{value}.", "Correct the entry.")


def _in_file(document: Document, keys: Keys, inside: tuple[str | int, ...]) -> Keys:
    """Pydantic's path without the names of union members, which don't stand in the file."""
    for key in inside:
        if (*keys, key) in document.places:
            keys = (*keys, key)
    missing = inside[-1:] if inside and inside[-1] != keys[-1] and isinstance(inside[-1], str) else ()
    return (*keys, *missing)


def _unknown_key(document: Document, keys: Keys, known: list[str] | tuple[str, ...]) -> NoReturn:
    match = nearest(str(keys[-1]), known)
    hint = f"Did you mean {match}?" if match else f"Known keys: {', '.join(known)}."
    raise UsageError(f"{document.at(keys)}: unknown key {str(keys[-1])[:40]!r}.", hint)


def _check_references(registry: Registry, mentions: list[_Reference]) -> None:
    """Only now, since a file may mention what a later one declares."""
    for mention in mentions:
        if mention.made in _needed(mention.name, registry):
            raise UsageError(
                f"{mention.at}: {mention.made} would be converted with itself, as base {mention.name!r}.",
                "Name as base the model that the checkpoint was fine-tuned from.",
            )
        known = {**registry.models, **(registry.prms if mention.what == "prm" else {})}
        if mention.name in known or references.looks_like_one(mention.name):
            continue
        match = nearest(mention.name, known)
        hint = f"Did you mean {match}?" if match else "Declare it under models."
        raise UsageError(f"{mention.at}: no {mention.what} is called {mention.name!r}.", hint)


def _needed(name: str, registry: Registry) -> set[str]:
    """The model, the bases that it is converted with, and those that they are."""
    found, left = set(), [name]
    while left:
        one = left.pop()
        if one in registry.models and one not in found:
            found.add(one)
            left += [s.base for s in registry.models[one].sources if isinstance(s, ConvertSource)]
    return found
