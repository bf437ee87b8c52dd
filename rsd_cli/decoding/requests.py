"""Makes a policy's requests jobs of the engines, each model in its own template and tokens. Steps nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from rsd_cli.decoding.policies import Judge, Write
from rsd_cli.decoding.trajectory import Answerer, Critic
from rsd_cli.engine import jobs
from rsd_cli.engine.jobs import ContextOverflow
from rsd_cli.engine.llama import Sampling
from rsd_cli.errors import ModelError, RSDError, UsageError
from rsd_cli.rewards.draft_head import DraftHead
from rsd_cli.rewards.families import Confidence, Solution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.decoding.policies import Proposal, Request
    from rsd_cli.decoding.trajectory import Participant, Trajectory
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.seats import Engine
    from rsd_cli.engine.templates import Message
    from rsd_cli.records import Author, Role
    from rsd_cli.rewards.families import Family

NO_REWARD = math.nan  # of a PRM that gave none: below every threshold
STEP_ROOM = 32  # tokens that a context must have left for one step


class Trio(Protocol):
    """The loaded models; a role may still be loading until it is asked for."""

    def engine(self, role: Role) -> Engine:
        """The engine that plays a role; two roles never share one."""
        ...

    def loaded(self) -> dict[Role, Engine]:
        """The engines that are there already."""
        ...

    def prompt(self, role: Author, system: str, question: str, before: Sequence[Message] = ()) -> list[int]:
        """The question as this role sees it before the first step, in its own template and tokens."""
        ...

    @property
    def family(self) -> Family | None:
        """How the PRM scores; None for strategies without one."""
        ...

    @property
    def critic(self) -> Role:
        """Whose engine the PRM reads with: its own, or the draft's if it is a head on that."""
        ...


class UnanswerableError(Exception):
    """A model can't be asked this."""

    def __init__(self, error: RSDError) -> None:
        super().__init__(error.message)
        self.error = error


class Requests:
    """Asks the engines of a trio on behalf of trajectories."""

    def __init__(self, trio: Trio) -> None:
        self._trio = trio

    def submit(self, trajectory: Trajectory, request: Request) -> float | None:
        """Make a request an engine's job; gives the answer at once where it needs no engine."""
        if isinstance(request, Write):
            self._write(trajectory, request.author)
            return None
        if isinstance(request, Judge):
            return self._judge(trajectory, request.step)
        raise AssertionError(f"{request} is no engine's work")

    def _write(self, trajectory: Trajectory, author: Author) -> None:
        context = self._participant(trajectory, author).context
        job = self._job(trajectory, author, context, trajectory.next_seed(author), trajectory.tokens_left)
        self._trio.engine(author).submit(trajectory.seat, job)

    def _job(
        self, trajectory: Trajectory, author: Author, context: Sequence[int], seed: int, max_tokens: int
    ) -> jobs.Write:
        settings = trajectory.settings
        is_judged = author == "draft" or settings.strategy == "audit"
        return jobs.Write(
            context=context,
            sampling=settings.sampling or Sampling(),
            seed=seed,
            separator=settings.separator,
            max_tokens=max_tokens,
            watch=is_judged and isinstance(self._trio.family, Confidence),
        )

    def _judge(self, trajectory: Trajectory, step: Proposal) -> float | None:
        family = self._trio.family
        if isinstance(family, Confidence):
            return family.reward(step.logprob, len(step.ids))
        if family is None:
            raise TypeError("this strategy has no PRM")
        try:
            if isinstance(family, DraftHead) and self._trio.critic == "draft":
                self._judge_in_place(trajectory, step, family)
            else:
                self._participant(trajectory, "prm")
                self._trio.engine("prm").submit(trajectory.seat, family.job(trajectory.solution(step)))
        except ContextOverflow:
            return NO_REWARD
        return None

    def _judge_in_place(self, trajectory: Trajectory, step: Proposal, family: DraftHead) -> None:
        """Read the state of the draft's own last token, in the decode that its next step begins with."""
        draft = self._participant(trajectory, "draft").context
        if step.author != "draft":
            own = self._trio.engine("draft").model.tokenize(step.text)
            self._trio.engine("draft").submit(trajectory.seat, family.own_job([*draft, *own], None))
            return
        context = [*draft, *step.ids]
        seed, left = trajectory.coming_seed("draft"), trajectory.tokens_left - len(step.ids)
        goes_on = step.ended == "separator" and left > 0
        ahead = self._job(trajectory, "draft", context, seed, left) if goes_on else None
        self._trio.engine("draft").submit(trajectory.seat, family.own_job(context, ahead))

    def _participant(self, trajectory: Trajectory, role: Role) -> Participant:
        if role not in trajectory.participants:
            engine = self._trio.engine(role)
            participant = self._join(trajectory, role, engine.model)
            self._check_room(role, engine, len(participant.prompt))
            trajectory.join(role, participant)
        return trajectory.participants[role]

    def _join(self, trajectory: Trajectory, role: Role, model: Model) -> Participant:
        problem, family = trajectory.problem, self._trio.family
        question = problem.question
        if role != "prm":
            try:
                prompt = self._trio.prompt(role, trajectory.settings.system, question, problem.before)
            except ModelError as error:
                raise UnanswerableError(error) from error
            return Answerer(model, prompt)
        if family is None or isinstance(family, Confidence):
            raise TypeError(f"{family} reads nothing")
        return Critic(family, Solution(question, earlier=problem.earlier))

    @staticmethod
    def _check_room(role: Role, engine: Engine, tokens: int) -> None:
        over = tokens + STEP_ROOM - engine.n_ctx
        if over > 0:
            error = UsageError(
                f"The question is {tokens:,} tokens long for the {role} model, {over:,} too many for its context "
                f"of {engine.n_ctx:,} with {STEP_ROOM} left for a step.",
                f"Shorten it, or raise --ctx (this model was trained for {engine.model.n_ctx_train:,}).",
            )
            raise UnanswerableError(error)
