"""The values that travel between the parts, and their JSON form. No behaviour beyond arithmetic on itself."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from rsd_cli.strictjson import read_object, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA = 1

Role = Literal["draft", "target", "prm"]
Author = Literal["draft", "target"]
EndedBy = Literal["eog", "max_tokens", "max_steps", "context", "timeout", "interrupted"]

ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Rejected:
    """A draft step that the target rewrote."""

    text: str
    reward: float | None
    tokens: int


@dataclass(frozen=True)
class Candidate:
    """A step that was written for this place and not taken."""

    text: str
    author: Author
    reward: float | None
    tokens: int


@dataclass(frozen=True)
class Guesses:
    """Tokens that were guessed for a step before the target wrote it, which kept those that it `accepted`.

    The draft `proposed` so many for it; where they come from its rejected step, which has them already, it did not.
    `refused` are those that the target decoded in vain, in so many `refusals`: at each of them the draft had proposed
    a last one that it did not decode itself.
    """

    proposed: int = 0
    accepted: int = 0
    refused: int = 0
    refusals: int = 0

    def __add__(self, other: Guesses) -> Guesses:
        return Guesses(
            self.proposed + other.proposed,
            self.accepted + other.accepted,
            self.refused + other.refused,
            self.refusals + other.refusals,
        )


@dataclass(frozen=True)
class Step:
    """A step of the final text. `tokens` were sampled by the author; `reward` is null where nobody judged.

    `audited` is what the target's step in its place would have earned, where that was tried; `others` are
    candidates that were not taken; `guesses` is null where the author wrote token by token.
    """

    text: str
    author: Author
    reward: float | None
    tokens: int
    ms: float
    rejected: Rejected | None = None
    audited: float | None = None
    others: tuple[Candidate, ...] = ()
    guesses: Guesses | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens of one role, counted where they are decoded.

    prompt: the question with its template; generated: sampled by the role; discarded: sampled or fed, but
    not part of the final text; fed: decoded without having been sampled by the role, prompt included;
    reused: found in the cache.
    """

    prompt: int = 0
    generated: int = 0
    discarded: int = 0
    fed: int = 0
    reused: int = 0

    @property
    def decoded(self) -> int:
        """Tokens that cost a forward pass."""
        return self.fed + self.generated

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.generated + other.generated,
            self.discarded + other.discarded,
            self.fed + other.fed,
            self.reused + other.reused,
        )


@dataclass(frozen=True)
class RoleTime:
    """Wall time of one role inside llama.cpp: reading (prompt) and writing (decode), in milliseconds."""

    prompt_ms: float = 0.0
    decode_ms: float = 0.0

    def __add__(self, other: RoleTime) -> RoleTime:
        return RoleTime(self.prompt_ms + other.prompt_ms, self.decode_ms + other.decode_ms)


def total(usages: Iterable[Usage]) -> Usage:
    """Counts together."""
    return sum(usages, Usage())


def total_time(times: Iterable[RoleTime]) -> RoleTime:
    """Times together."""
    return sum(times, RoleTime())


@dataclass(frozen=True)
class Timings:
    """Wall time in milliseconds since the start of the command, or of a later question, downloads left out.

    `load_ms`: the first model was ready; `first_token_ms`: the first token was sampled.
    """

    load_ms: float
    first_token_ms: float | None
    total_ms: float
    roles: dict[Role, RoleTime] = field(default_factory=dict)


@dataclass(frozen=True)
class Flops:
    """Compute as 2 x parameters x tokens (paper, section 4), PRM included.

    `target_only` is what the target alone would have needed for the same text. It is null where that is not known: no
    target was loaded by the end of the answer, its chat template refuses these turns, or the answer was interrupted.
    """

    draft: float
    target: float
    prm: float
    target_only: float | None

    @property
    def total(self) -> float:
        """All roles together."""
        return self.draft + self.target + self.prm


@dataclass(frozen=True)
class ModelId:
    """Which weights played a role."""

    name: str
    sha256: str | None
    parameters: int


@dataclass(frozen=True)
class Sample:
    """One of several whole answers, of which one was chosen; `score` is the PRM's where that decided."""

    final_answer: str | None
    tokens: int
    ended_by: EndedBy
    score: float | None = None


@dataclass(frozen=True)
class Record:
    """One answered question: who wrote what, what it scored, what it cost.

    Where it was chosen among `samples`, its counts, compute and times are those of all of them.
    """

    id: str
    question: str
    answer: str
    final_answer: str | None
    steps: tuple[Step, ...]
    usage: dict[Role, Usage]
    flops: Flops
    timings: Timings
    ended_by: EndedBy
    strategy: str
    settings: dict[str, Any]
    models: dict[Role, ModelId]
    versions: dict[str, str]
    seed: int
    samples: tuple[Sample, ...] = ()
    schema: int = SCHEMA

    def to_json(self) -> str:
        """One line of JSON, keys as documented in the README."""
        data = dataclasses.asdict(self)
        data["flops"]["total"] = self.flops.total
        data["timings"] |= data["timings"].pop("roles")
        for step in data["steps"]:
            for key in ("rejected", "audited", "others", "guesses"):
                if step[key] in (None, ()):
                    del step[key]
        if not self.samples:
            del data["samples"]
        order = ("schema", "id", "question", "answer", "final_answer", "steps")
        return json.dumps({key: data.pop(key) for key in order} | data, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, data: object) -> Record:
        """The inverse of `to_json`, from the parsed object; ValueError says what is wrong and where.

        Strict: unknown keys, missing keys, other types and other schemas are refused.
        """
        if not isinstance(data, dict):
            raise ValueError(f"a record is an object, not {shown(data)}")  # noqa: TRY004 - the data is wrong
        if data.get("schema") != SCHEMA:
            raise ValueError(f"schema is {shown(data.get('schema'))}, this version reads {SCHEMA}")
        nested = dict(data)
        if isinstance(data.get("flops"), dict):
            nested["flops"] = {key: value for key, value in data["flops"].items() if key != "total"}
        if isinstance(data.get("timings"), dict):
            nested["timings"] = _gather_roles(data["timings"])
        return read_object(cls, nested, "record")


def _gather_roles(timings: dict[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in timings.items() if key not in ROLES}
    return own | {"roles": {key: value for key, value in timings.items() if key in ROLES}}
