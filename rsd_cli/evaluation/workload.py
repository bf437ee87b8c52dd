"""The tokens that RSD and the target alone need for the same answers, and how RSD's change with the acceptance.

Counts come from records; what they would be at another acceptance is an estimate. Knows no prices.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rsd_cli.decoding.gating import gated, passed_over
from rsd_cli.records import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rsd_cli.records import Author, Record, Role


@dataclass(frozen=True)
class Tokens:
    """What a role read (prompt and others' steps) and wrote, as far as it was decoded."""

    read: float
    written: float


NOTHING = Tokens(0.0, 0.0)


@dataclass
class Rota:
    """Texts one after another on so many rows, each on the one that is free first; a decode goes through all rows.

    `ends` says after how many decodes each row in use has written its last text.
    """

    rows: int
    ends: list[int] = field(default_factory=list)

    def add(self, tokens: int) -> None:
        """Another text, of so many tokens."""
        begin = heapq.heappop(self.ends) if len(self.ends) >= self.rows else 0
        heapq.heappush(self.ends, begin + tokens)

    @property
    def decodes(self) -> Iterator[tuple[int, int]]:
        """How many decodes there are of how many rows: of all while texts are left, then of fewer and fewer."""
        before = 0
        for done, end in enumerate(sorted(self.ends)):
            yield end - before, len(self.ends) - done
            before = end


@dataclass(frozen=True)
class Alone:
    """The target's own answers: their tokens, and the rows that write them side by side."""

    tokens: Tokens
    rota: Rota


def alone_of(records: Iterable[Record]) -> Alone:
    """What the target took for answers that it gave alone."""
    tokens, rota = NOTHING, Rota(1)
    for i, record in enumerate(records):
        used = record.usage.get("target", Usage())
        tokens = Tokens(tokens.read + used.fed, tokens.written + used.generated)
        rota = rota if i else Rota(rows_of(record))
        rota.add(used.generated)
    return Alone(tokens, rota)


def rows_of(record: Record) -> int:
    """How many rows the models decoded together where this answer was given."""
    rows = record.settings.get("n_streams")
    return rows if isinstance(rows, int) and rows > 0 else 1


@dataclass(frozen=True)
class Work:
    """The tokens of some answers by RSD, and of the target's own answers to the same questions.

    `rota` has the target's own answers. `prm_prompts` is what the PRM read of the questions. `rejected` tokens of
    the draft belong to steps that failed the criterion or were not even picked for it; `joined` is the share of
    answers in which the target took part, `steps` their mean length. `proposed` tokens the draft wrote for steps of
    the target, which checked them; `others` belong to steps beside those that stayed.
    """

    rsd: dict[Role, Tokens]
    alone: Tokens
    prm_prompts: float
    rejected: float
    joined: float
    steps: float
    rota: Rota = field(default_factory=lambda: Rota(1))
    proposed: float = 0.0
    others: float = 0.0

    @property
    def acceptance(self) -> float:
        """Accepted / (accepted + rejected) tokens of the draft's own steps, as in the paper; 1 if it wrote none."""
        own = self.rsd["draft"].written - self.proposed
        return 1 - self.rejected / own if own else 1.0

    @property
    def scales(self) -> bool:
        """Whether the target wrote in place of rejected steps and nowhere else, so that `at` makes sense.

        It does not either where the draft proposed tokens for that, or several steps were written for one place: how
        many depends on more than the acceptance.
        """
        replaces = bool(self.rejected) or not self.rsd["target"].written
        return replaces and not self.proposed and not self.others

    def at(self, acceptance: float) -> dict[Role, Tokens]:
        """An estimate at another acceptance for as many kept tokens; at `self.acceptance` the tokens as they are.

        A rejected token of the draft brings as many of the target as it did; the draft reads those, the PRM both's,
        and the target, where it takes part, its prompt and its share of the accepted ones.
        """
        draft, target = self.rsd["draft"], self.rsd["target"]
        per_rejected = target.written / self.rejected if self.rejected else 1.0
        kept = draft.written - self.rejected + target.written
        drafted = kept / (acceptance + (1 - acceptance) * per_rejected)
        rewritten = (1 - acceptance) * drafted * per_rejected
        work: dict[Role, Tokens] = {
            "draft": Tokens(max(0.0, draft.read - target.written + rewritten), drafted),
            "target": Tokens(self._target_reads(acceptance, acceptance * drafted), rewritten),
        }
        if "prm" in self.rsd:
            known = draft.written + target.written
            read = self.rsd["prm"].read - self.prm_prompts
            share = (drafted + rewritten) / known
            work["prm"] = Tokens(self.prm_prompts + share * read, share * self.rsd["prm"].written)
        return work

    def _target_reads(self, acceptance: float, accepted: float) -> float:
        """Of each answer that it joins the prompt, and of the accepted tokens the share that it read so far."""
        if not self.joined:
            return self._joins(acceptance) * (self.alone.read + accepted)
        each = self.rsd["target"].read / self.joined
        prompts = min(self.alone.read, each)
        so_far = self.rsd["draft"].written - self.rejected
        per_accepted = (each - prompts) / so_far if so_far else 1.0
        return self._joins(acceptance) * (prompts + per_accepted * accepted)

    def _joins(self, acceptance: float) -> float:
        """The share of answers with a rejection: 1 - acceptance^s, with the s that gives `joined`, if one does."""
        if self.joined >= 1:
            return float(acceptance < 1)
        between = self.joined > 0 and 0 < self.acceptance < 1
        s = math.log(1 - self.joined) / math.log(self.acceptance) if between else self.steps
        return 1 - math.pow(acceptance, s)


@dataclass
class Workload:
    """Counts over the records of RSD's answers, taken in one by one.

    Left out are records that don't say what the target alone would have needed, such as interrupted ones. `rows` were
    decoded together; 0 leaves that to the records, which do not say it where nothing depends on it.
    """

    rows: int = 0
    n: int = 0
    usage: dict[Role, Usage] = field(default_factory=dict)
    parameters: dict[Role, int] = field(default_factory=dict)
    same_texts: Tokens = NOTHING
    rejected: int = 0
    joined: int = 0
    steps: int = 0
    proposed: int = 0
    others: int = 0
    _rota: Rota | None = None

    def add(self, record: Record) -> None:
        """Count an answer."""
        if record.flops.target_only is None or "target" not in record.models:
            return
        own, drafts = record.usage.get("target", Usage()), record.usage.get("draft", Usage())
        prompt = (
            own.prompt or drafts.prompt
        )  # a target that did not join read none; about as long as the draft's
        text = record.flops.target_only / (2.0 * record.models["target"].parameters) - prompt
        read = _read_of_prompt(record, prompt)
        self.same_texts = Tokens(self.same_texts.read + read, self.same_texts.written + text)
        self._rota = self._rota or Rota(self.rows or rows_of(record))
        self._rota.add(round(text))
        for role, used in record.usage.items():
            self.usage[role] = self.usage.get(role, Usage()) + used
        self.parameters |= {role: model.parameters for role, model in record.models.items()}
        self.rejected += sum(step.tokens for step in gated(record) if not step.passed)
        self.rejected += sum(other.tokens for other in passed_over(record))
        self.proposed += sum(step.guesses.proposed for step in record.steps if step.guesses)
        self.others += sum(other.tokens for step in record.steps for other in step.others)
        self.joined += own.decoded > 0
        self.steps += len(record.steps)
        self.n += 1

    def work(self, alone: Alone | None = None) -> Work | None:
        """The work of all answers; None if there is none of the draft's or the target's to compare.

        `alone` is what the target took for the same questions by itself. Without it, it is taken to read its
        prompts and to write the very texts that RSD wrote.
        """
        alone = alone or Alone(self.same_texts, self._rota or Rota(1))
        drafts, prm = self.usage.get("draft", Usage()), self.usage.get("prm", Usage())
        if not drafts.generated or alone.tokens.written <= 0:
            return None
        own: dict[Role, Tokens] = {
            role: Tokens(used.fed, used.generated) for role, used in self.usage.items()
        }
        return Work(
            rsd={"target": NOTHING, **own},
            alone=alone.tokens,
            prm_prompts=min(prm.prompt, prm.fed),
            rejected=self.rejected,
            joined=self.joined / self.n,
            steps=self.steps / self.n,
            rota=alone.rota,
            proposed=self.proposed,
            others=self.others,
        )


def _read_of_prompt(record: Record, prompt: int) -> int:
    """How much of its prompt was read and not found in the cache, as rows with one system prompt share it.

    What is not the other author's text, of the target or, where it did not join, of the draft.
    """
    role: Author = "target" if record.usage.get("target", Usage()).decoded else "draft"
    own = [i for i, step in enumerate(record.steps) if step.author == role]
    before = record.steps[: own[-1]] if own else ()
    others = sum(step.tokens for step in before if step.author != role)
    return min(prompt, max(0, record.usage.get(role, Usage()).fed - others))
