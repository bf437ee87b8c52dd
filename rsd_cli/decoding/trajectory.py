"""One answer in the making: its policy, its kept steps, and what each role's model knows of it.

Tokens stay within a model; between models steps travel as text. It decides when an answer is over, and
knows nothing of scheduling.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

from rsd_cli.decoding.policies import Request
from rsd_cli.records import Step
from rsd_cli.rewards.families import Solution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.decoding.policies import Keep, Policy, Proposal
    from rsd_cli.engine.jobs import Checked, Proposed
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.sampling import Sampling
    from rsd_cli.engine.templates import Message
    from rsd_cli.records import EndedBy, Role
    from rsd_cli.rewards.families import Aggregate, Reader

    # What an engine answers: to a Write, to whatever asks for a number, to a Propose, to a Check.
    Answer = Proposal | float | Proposed | Checked

BETWEEN = re.compile(r"(?<=\n\n)(?!\n)")  # behind the last of two newlines or more


@dataclass(frozen=True)
class Settings:
    """What an answer depends on besides its models. `max_seconds` is wall time in a seat; None for no limit.

    `strategy` is NAME[@N][:author], `weighting` NAME[:parameter=value,...]. A `target_share` takes the place of
    both threshold and weighting. `beta` draws one of several candidates instead of taking the best; `aggregate`
    scores whole answers. `speculative`: the target writes its steps over tokens that the draft proposes, whatever
    the strategy.
    """

    strategy: str = "rsd"
    threshold: float = 0.7
    weighting: str = "binary"
    target_share: float | None = None
    share_per: Literal["run", "problem"] = "run"
    beta: float | None = None
    aggregate: Aggregate = "last"
    max_tokens: int = 2048
    max_steps: int = 100
    system: str = ""
    seed: int = 0
    sampling: Sampling | None = None
    separator: str = "\n\n"
    max_seconds: float | None = None
    speculative: bool = False


@dataclass(frozen=True)
class Problem:
    """A question with the name under which it is seeded and reported.

    `before` are earlier turns of the conversation, and `earlier` those of them that a PRM reads; `settings` are its
    own in place of the run's; `branch` tells several answers to one question apart.
    """

    id: str
    question: str
    before: tuple[Message, ...] = ()
    earlier: tuple[Solution, ...] = ()
    settings: Settings | None = None
    branch: int = 0


def solved(before: Sequence[Message]) -> tuple[Solution, ...]:
    """Earlier turns as a PRM reads them: what a user asked, and the steps of the answer right behind it.

    All that stands between two steps ends the first of them; generators read the messages as they are.
    """
    return tuple(
        Solution(asked.content, tuple(step for step in BETWEEN.split(told.content) if step.strip()))
        for asked, told in itertools.pairwise(before)
        if (asked.role, told.role) == ("user", "assistant")
    )


class Participant(Protocol):
    """What a role's model knows of an answer."""

    @property
    def prompt(self) -> list[int]:
        """The question before the first step."""
        ...

    @property
    def context(self) -> list[int]:
        """Everything that this role should know now."""
        ...

    def keep(self, step: Proposal, role: Role) -> None:
        """A step became part of the answer; `role` is the participant's own."""
        ...


@dataclass
class Answerer:
    """A role that writes: the question in its own tokens, and each kept step."""

    model: Model
    prompt: list[int]
    steps: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def context(self) -> list[int]:
        """The conversation up to the next step."""
        return [*self.prompt, *(token for step in self.steps for token in step)]

    @property
    def answer(self) -> tuple[int, ...]:
        """The answer as it stands in this model's memory, without the token that ended it."""
        ids = [token for step in self.steps for token in step]
        return tuple(ids[:-1] if ids and self.model.ends_generation(ids[-1]) else ids)

    def keep(self, step: Proposal, role: Role) -> None:
        """Append a kept step."""
        self.steps.append(self.ids(step, role))

    def ids(self, step: Proposal, role: Role) -> tuple[int, ...]:
        """A step's tokens: the very ones if this model wrote it or proposed to it, else its text's."""
        own = step.author == role or step.guesses is not None
        return self.known(step.ids) if own else tuple(self.model.tokenize(step.text))

    def known(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Tokens of a vocabulary that begins alike; any stands for one that this model doesn't have."""
        last = self.model.n_vocab - 1
        return tuple(min(token, last) for token in ids)


@dataclass
class Critic:
    """A PRM with an engine of its own: texts, in the layout of its family."""

    reader: Reader
    solution: Solution

    @property
    def prompt(self) -> list[int]:
        """The question before the first step."""
        return self.reader.context(replace(self.solution, steps=()))

    @property
    def context(self) -> list[int]:
        """The kept steps in the family's layout."""
        return self.reader.context(self.solution)

    def keep(self, step: Proposal, role: Role) -> None:  # noqa: ARG002 - the participants' common face
        """Append a kept step's text, whoever wrote it."""
        self.solution = replace(self.solution, steps=(*self.solution.steps, step.text))


@dataclass(frozen=True)
class Pending:
    """An answer that is still to come: whose engine works on it, in which of the trajectory's lanes."""

    role: Role
    lane: int


@dataclass
class Trajectory:
    """An answer that a policy is writing in the same seats of every engine, one for each of its lanes.

    `request` is what the policy waits for, one or a list, and `answers` are those that it will be sent, in order.
    `refused` of the draft's tokens were decoded by the target in vain.
    """

    problem: Problem
    seats: tuple[int, ...]
    policy: Policy
    settings: Settings
    request: Request | Sequence[Request] | None = None
    answers: list[Answer | Pending] = field(default_factory=list)
    participants: dict[Role, Participant] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    kept: list[Proposal] = field(default_factory=list)
    jobs: int = 0
    tokens: int = 0
    refused: int = 0
    first_token_at: float | None = None
    began: float = field(default_factory=time.perf_counter)

    @property
    def overdue(self) -> bool:
        """Whether it has had its time."""
        limit = self.settings.max_seconds
        return limit is not None and time.perf_counter() - self.began > limit

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(step.text for step in self.steps)

    @property
    def tokens_left(self) -> int:
        """How many tokens the answer may still grow by."""
        return self.settings.max_tokens - self.tokens

    def join(self, role: Role, participant: Participant) -> None:
        """Let a role take part from now on; it catches up with the kept steps."""
        self.participants[role] = participant
        for step in self.kept:
            participant.keep(step, role)

    @property
    def requests(self) -> tuple[Request, ...]:
        """What the policy waits for, side by side."""
        request = self.request
        if request is None:
            return ()
        return (request,) if isinstance(request, Request) else tuple(request)

    def asked(self, pending: Pending) -> Request:
        """The request that an engine is working on."""
        return self.requests[self.answers.index(pending)]

    def answered(self, pending: Pending, answer: Answer) -> bool:
        """Take an engine's answer; says whether it was the last that the policy waits for."""
        self.answers[self.answers.index(pending)] = answer
        return not any(isinstance(each, Pending) for each in self.answers)

    def solution(self, step: Proposal, after: Sequence[Proposal] = ()) -> Solution:
        """The kept steps and proposed ones, the newest last, as a PRM is asked about them."""
        texts = tuple(each.text for each in (*self.kept, *after, step))
        return Solution(self.problem.question, texts, self.problem.earlier, ended=step.ended == "eog")

    def keep(self, request: Keep) -> EndedBy | None:
        """Append a step for all who take part; says why the answer is over, if it is."""
        step = request.step
        self.kept.append(step)
        self.tokens += len(step.ids)
        spent = round(step.ms, 1)
        self.steps.append(
            Step(
                step.text,
                step.author,
                request.reward,
                len(step.ids),
                spent,
                request.rejected,
                request.audited,
                request.others,
                step.guesses,
            )
        )
        for role, participant in self.participants.items():
            participant.keep(step, role)
        return self._end(step)

    def _end(self, step: Proposal) -> EndedBy | None:
        if step.ended in ("eog", "context"):
            return step.ended
        if self.tokens_left <= 0:
            return "max_tokens"
        return "max_steps" if len(self.steps) >= self.settings.max_steps else None

    def next_seed(self, role: Role) -> int:
        """The seed of a role's next job; jobs are counted, so that none has another's."""
        self.jobs += 1
        return self._seed(role, self.jobs)

    def coming_seed(self) -> int:
        """What `next_seed` will say of the draft."""
        return self._seed("draft", self.jobs + 1)

    def _seed(self, role: Role, job: int) -> int:
        """32 bits that depend on the seed, this problem and branch, the role and the job, on nothing else."""
        name = f"{self.settings.seed}/{self.problem.id}/{role}/{job}"
        name += f"/{self.problem.branch}" if self.problem.branch else ""
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")
