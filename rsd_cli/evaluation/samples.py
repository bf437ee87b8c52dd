"""Answered questions of an evaluation, and their lines of JSON in the field names of lm-evaluation-harness.

Grades nothing: who answers a question says whether it was right. Our records stand under one key, `rsd`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from rsd_cli.decoding.strategies import parse
from rsd_cli.errors import OutputError
from rsd_cli.evaluation.choosing import counting
from rsd_cli.records import Record  # noqa: TC001 - read_object looks its fields' types up
from rsd_cli.strictjson import read_object

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Outcome = Literal["right", "wrong", "truncated", "empty", "unparsable", "timeout", "error"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
MEND = "Mend or remove the line; rsd eval answers again what has none."


@dataclass(frozen=True)
class Branch:
    """One answer to a question and its grade; `score` is the PRM's of the whole answer, if it was asked."""

    record: Record
    right: bool
    extracted: str | None
    outcome: Outcome
    score: float | None = None


@dataclass(frozen=True)
class Sample:
    """One question as one strategy answered it.

    `branches` has one answer, or all n in the order of drawing where a strategy draws n and chooses one; it is
    empty where the question could not be answered, and then `error` says why. `right`, `extracted` and `outcome`
    are the chosen answer's. `seconds` is the wall time since the one before it was over, of questions that were
    answered side by side; None if it was not measured.
    """

    strategy: str
    doc_id: int
    doc: dict[str, Any]
    target: str
    branches: tuple[Branch, ...]
    right: bool
    extracted: str | None
    outcome: Outcome
    error: str | None = None
    seconds: float | None = None

    @classmethod
    def single(cls, strategy: str, doc_id: int, doc: dict[str, Any], target: str, branch: Branch) -> Sample:
        """The sample of a strategy that answers once."""
        return cls(strategy, doc_id, doc, target, (branch,), branch.right, branch.extracted, branch.outcome)

    @property
    def records(self) -> tuple[Record, ...]:
        """What it cost, branch after branch."""
        return tuple(branch.record for branch in self.branches)

    @property
    def chosen(self) -> Branch | None:
        """The answer that counts, if there is any."""
        if not self.branches:
            return None
        return counting(self.branches, parse(self.branches[0].record.strategy).choice)

    @property
    def is_cut_short(self) -> bool:
        """Whether the answer that counts did not end by itself."""
        chosen = self.chosen
        return chosen is not None and chosen.record.ended_by != "eog"

    @property
    def doc_hash(self) -> str:
        """Tells whether two runs asked the same, as lm-evaluation-harness computes it."""
        return _hash(json.dumps(self.doc, indent=2, ensure_ascii=False))

    def to_json(self) -> str:
        """One line of JSON."""
        prompt = self.records[0].question if self.branches else ""
        settings = self.records[0].settings if self.branches else {}
        data: dict[str, Any] = {
            "doc_id": self.doc_id,
            "doc": self.doc,
            "target": self.target,
            "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": settings}},
            "resps": [[record.answer for record in self.records]],
            "filtered_resps": [self.extracted],
            "filter": "none",
            "metrics": ["exact_match"],
            "doc_hash": self.doc_hash,
            "prompt_hash": _hash(prompt),
            "target_hash": _hash(self.target),
            "exact_match": float(self.right),
            "rsd": {
                "strategy": self.strategy,
                "outcome": self.outcome,
                "error": self.error,
                "seconds": self.seconds,
                "branches": [_branch_json(branch) for branch in self.branches],
            },
        }
        return json.dumps(data, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, data: object) -> Sample:
        """The inverse of `to_json`, from the parsed object; ValueError says what is wrong and where."""
        line = read_object(_Line, data, "sample")
        if len(line.filtered_resps) != 1 or line.exact_match not in (0, 1):
            raise ValueError("sample has no single grade")
        sample = cls(
            strategy=line.rsd.strategy,
            doc_id=line.doc_id,
            doc=line.doc,
            target=line.target,
            branches=line.rsd.branches,
            right=line.exact_match == 1,
            extracted=line.filtered_resps[0],
            outcome=line.rsd.outcome,
            error=line.rsd.error,
            seconds=line.rsd.seconds,
        )
        if line.doc_hash != sample.doc_hash:
            raise ValueError("sample.doc_hash is not the hash of its doc")
        return sample


@dataclass(frozen=True)
class _Ours:
    strategy: str
    outcome: Outcome
    error: str | None
    seconds: float | None
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class _Line:
    """A sample as lm-evaluation-harness names its parts."""

    doc_id: int
    doc: dict[str, Any]
    target: str
    arguments: dict[str, Any]
    resps: tuple[Any, ...]
    filtered_resps: tuple[str | None, ...]
    filter: str
    metrics: tuple[str, ...]
    doc_hash: str
    prompt_hash: str
    target_hash: str
    exact_match: float
    rsd: _Ours


def read_samples(path: Path) -> tuple[Sample, ...]:
    """All samples of a file; a last line that was torn off while it was written is left out.

    A question that failed may have been answered later; then that counts.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OutputError(f"{path} can't be read: {error.strerror}.") from error
    samples: dict[int, Sample] = {}
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            sample = Sample.from_json(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise OutputError(f"{path} line {number} is no sample of rsd eval: {error}.", MEND) from error
        if sample.doc_id in samples and samples[sample.doc_id].error is None:
            raise OutputError(f"{path} line {number} answers question {sample.doc_id} a second time.", MEND)
        samples[sample.doc_id] = sample
    return tuple(samples.values())


def set_hash(samples: Iterable[Sample]) -> str:
    """One hash over the questions of a run, whatever their order."""
    return _hash("".join(sorted(sample.doc_hash for sample in samples)))


def question_of(sample: Sample) -> str:
    """What was asked."""
    return sample.records[0].question if sample.branches else str(next(iter(sample.doc.values()), ""))


def _branch_json(branch: Branch) -> dict[str, Any]:
    return {
        "right": branch.right,
        "extracted": branch.extracted,
        "outcome": branch.outcome,
        "score": branch.score,
        "record": json.loads(branch.record.to_json()),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
