"""Writes a trio's threshold, and on what it was calibrated, into the models.yaml that declares it.

Everything else in the file stays as it is. What an edit makes of the file is read before the file is replaced: it
has to say what it said, and these two.
"""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rsd_cli.errors import UsageError
from rsd_cli.output import write_whole
from rsd_cli.registry.files import asked_files, is_packed, kind_at, registry_files, user_file
from rsd_cli.registry.names import number_text
from rsd_cli.registry.strictyaml import Document, parse, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rsd_cli.registry.entries import TrioEntry

INDENT = 2  # of entries where there are none to go by


def set_threshold(
    trio: TrioEntry, threshold: float, calibrated_on: str, models_file: Path | None = None
) -> Path:
    """Change the threshold in the file that declares the trio, and what it comes from; gives the file's path.

    The packed file is never changed: the user's file gets the trio then, and wins.
    """
    edit = _Edit(_file_of(trio.name, models_file), trio, threshold, calibrated_on)
    text = edit.text()
    try:
        edit.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(edit.path, [text.encode()])
    except OSError as error:
        raise UsageError(f"{edit.path} can't be written: {error.strerror}.", edit.by_hand) from error
    return edit.path


def check_savable(trio: TrioEntry, models_file: Path | None = None) -> None:
    """Refuse before the work what could not be saved behind it."""
    try:
        _Edit(_file_of(trio.name, models_file), trio, trio.threshold, trio.calibrated_on).text()
    except UsageError as error:
        raise UsageError(error.message, f"Leave out --save. {error.hint}") from error


def _file_of(name: str, models_file: Path | None) -> Path:
    """Where the trio's threshold counts; a link stays one, what it leads to is written."""
    declaring = next(path for path in registry_files(models_file) if name in _trios(read(path)))
    if not is_packed(declaring):
        return Path(os.path.realpath(declaring))
    if any(is_packed(path) for path in (*asked_files(models_file), user_file())):
        raise UsageError(
            f"{declaring} comes with the program and is not changed.",
            "Name a copy of it instead, or none: then the threshold goes to your own models.yaml.",
        )
    return Path(os.path.realpath(user_file()))


def _trios(document: Document) -> dict[str, Any]:
    return document.data.get("trios") or {}


@dataclass(frozen=True)
class _Edit:
    """A file that is to say a threshold for a trio."""

    path: Path
    trio: TrioEntry
    threshold: float
    calibrated_on: str

    def text(self) -> str:
        """The file's new text; refuses where it would say anything else than before besides."""
        texts = self._changed() if self._is_there else [self._extended()]
        right = next((text for text in texts if self._is_right(text)), None)
        if right is None:
            raise UsageError(
                f"{self._document.at(('trios', self.trio.name))}: the threshold of {self.trio.name} "
                "can't be written in place.",
                self.by_hand,
            )
        return right

    @property
    def by_hand(self) -> str:
        """What a person can write instead."""
        if self._is_there:
            return f"To write there by hand: threshold: {number_text(self.threshold)}"
        entry = yaml.safe_dump(
            self._entry, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=True
        )
        return f"The line to write by hand below trios: {entry.strip()[1:-1]}"

    def _is_right(self, text: str) -> bool:
        try:
            data = parse(text, self.path).data
        except UsageError:
            return False
        before = self._document.data
        return bool(data == {**before, "trios": {**_trios(self._document), **self._entry}})

    @cached_property
    def _before(self) -> str:
        return self.path.read_bytes().decode() if kind_at(self.path) == "file" else ""

    @cached_property
    def _document(self) -> Document:
        return parse(self._before, self.path) if self._before else Document(self.path, {}, {})

    @property
    def _is_there(self) -> bool:
        return self.trio.name in _trios(self._document)

    @property
    def _entry(self) -> dict[str, dict[str, Any]]:
        """The trio as the file is to declare it."""
        declared = self.trio.model_dump(exclude={"name"}, exclude_unset=True)
        fields = _trios(self._document).get(self.trio.name, declared)
        return {self.trio.name: {**fields, "threshold": self.threshold, "calibrated_on": self.calibrated_on}}

    def _changed(self) -> Iterator[str]:
        """The values in the places of those that are there; a new one in a line of its own, or in the braces."""
        start, end = self._span("threshold")
        number = (start, end, number_text(self.threshold))
        told = yaml.safe_dump(self.calibrated_on, default_style='"', allow_unicode=True, width=10_000).strip()
        if "calibrated_on" in _trios(self._document)[self.trio.name]:
            yield self._with([number, (*self._span("calibrated_on"), told)])
            return
        begin = self._before.rfind("\n", 0, start) + 1
        line = self._before[begin:].partition("\n")[0]
        body, margin = line.rstrip("\r"), line[: len(line) - len(line.lstrip())]
        behind, newline = begin + len(body), line[len(body) :] + "\n"
        yield self._with([number, (behind, behind, f"{newline}{margin}calibrated_on: {told}")])
        yield self._with([number, (end, end, f", calibrated_on: {told}")])

    def _span(self, key: str) -> tuple[int, int]:
        """From which character to which a value of the trio stands."""
        place = self._document.place(("trios", self.trio.name, key))
        return place.start, place.start + len(self._before[place.start : place.end].rstrip())

    def _with(self, changes: Iterable[tuple[int, int, str]]) -> str:
        """The text with other parts in the places of some."""
        text = self._before
        for start, end, part in sorted(changes, reverse=True):
            text = text[:start] + part + text[end:]
        return text

    def _extended(self) -> str:
        """The trio before the others, indented as they are, or in a section of its own."""
        lines = self._before.splitlines(keepends=True)
        if "trios" in self._document.data:
            head = self._document.place(("trios",)).line
            return "".join(lines[:head]) + self._declared() + "".join(lines[head:])
        return f"{self._before.rstrip()}\n\ntrios:\n{self._declared()}".lstrip()

    def _declared(self) -> str:
        names = _trios(self._document)
        first = self._document.place(("trios", next(iter(names)))) if names else None
        indent = first.column - 1 if first else INDENT
        entry = yaml.safe_dump(self._entry, sort_keys=False, allow_unicode=True, width=10_000, indent=indent)
        return textwrap.indent(entry, " " * indent)
