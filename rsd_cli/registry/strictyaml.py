"""YAML as plain data and nothing else: no tags, aliases, merge keys, duplicate keys or second documents.

Every value keeps its place, so that an error found later can still name file, line and column. Knows nothing
about models.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import yaml

from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
Keys: TypeAlias = "tuple[str | int, ...]"


@dataclass(frozen=True)
class Place:
    """Where a value stands and how it is spelled there; from which character to which, if it is a scalar."""

    line: int
    column: int
    spelling: str = ""
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class Document:
    """The data of one file with the place of every value and every key."""

    path: Path
    data: Any
    places: dict[Keys, Place] = field(repr=False)

    def place(self, keys: Keys) -> Place:
        """The place of the value, or of the nearest enclosing one that exists."""
        while keys not in self.places and keys:
            keys = keys[:-1]
        return self.places.get(keys, Place(1, 1))

    def at(self, keys: Keys) -> str:
        """'models.yaml:12:5', the way editors understand it."""
        place = self.place(keys)
        return f"{self.path}:{place.line}:{place.column}"


class _StrictLoader(yaml.SafeLoader):
    """Refuses while composing, so that nothing can be expanded first."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            _refuse("anchors and aliases are not allowed", event.start_mark)
        if getattr(event, "tag", None):
            _refuse(f"the tag {event.tag!r} is not allowed", event.start_mark)
        if self.depth >= MAX_DEPTH:
            _refuse("too deeply nested", event.start_mark)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read(path: Path) -> Document:
    """Read one file; whatever is wrong with it is a UsageError that says where."""
    return parse(_text(path), path)


def parse(text: str, path: Path) -> Document:
    """The same for a text that stands in a file, or is going to."""
    try:
        loader = _StrictLoader(text)
        return _document(path, loader, loader.get_single_node())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise UsageError(f"{at}: {error.problem or error.context}.", "Correct the file.") from None
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} is not YAML: {reason}.", "Correct the file.") from None


def _text(path: Path) -> str:
    """The file's text; only regular files, since opening a FIFO would wait forever."""
    try:
        mode = path.stat()
        if not stat.S_ISREG(mode.st_mode):
            raise UsageError(f"{path} is not a regular file.", "Give a YAML file.")
        if mode.st_size > MAX_BYTES:
            raise UsageError(
                f"{path} has {mode.st_size} bytes, more than {MAX_BYTES}.", "Give a models.yaml."
            )
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from None
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}.", "Check the path.") from None


def _document(path: Path, loader: _StrictLoader, node: yaml.Node | None) -> Document:
    if node is None:
        raise UsageError(f"{path} is empty.", "It needs a section models, prms or trios.")
    places: dict[Keys, Place] = {}
    return Document(path, _plain(loader, node, (), places), places)


def _plain(loader: _StrictLoader, node: yaml.Node, keys: Keys, places: dict[Keys, Place]) -> Any:  # noqa: ANN401
    start, end = node.start_mark, node.end_mark
    place = Place(start.line + 1, start.column + 1)
    if isinstance(node, yaml.ScalarNode):
        place = Place(start.line + 1, start.column + 1, node.value, start.index, end.index)
    places.setdefault(keys, place)
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, keys, places)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, child, (*keys, i), places) for i, child in enumerate(node.value)]
    return _scalar(loader, node)


def _mapping(
    loader: _StrictLoader, node: yaml.MappingNode, keys: Keys, places: dict[Keys, Place]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        key = _key(loader, key_node)
        line = key_node.start_mark.line + 1
        if key in found:
            _refuse(f"{key!r} stands twice, first in line {lines[key]}", key_node.start_mark)
        lines[key] = line
        # An error about an entry points at its key; one about a value points at the value.
        below = (*keys, key)
        if not isinstance(value_node, yaml.ScalarNode):
            places[below] = Place(line, key_node.start_mark.column + 1)
        found[key] = _plain(loader, value_node, below, places)
    return found


def _key(loader: _StrictLoader, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        _refuse("a key must be text", node.start_mark)
    if node.tag == "tag:yaml.org,2002:merge":
        _refuse("merge keys are not allowed", node.start_mark)
    if not isinstance(_scalar(loader, node), str):
        _refuse(f"YAML does not read the key {node.value} as text; quote it", node.start_mark)
    return str(node.value)


def _scalar(loader: _StrictLoader, node: yaml.Node) -> Any:  # noqa: ANN401
    if node.tag in NUMBERS and ":" in node.value:
        return node.value  # text, as in YAML 1.2; in 1.1 1:30 is 90, and a long one takes very long
    try:
        return loader.construct_object(node)
    except (ValueError, OverflowError):  # an integer of 5,000 digits, 30 February
        _refuse("this value cannot be read; quote it if it is text", node.start_mark)


def _refuse(problem: str, mark: yaml.Mark | None) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
