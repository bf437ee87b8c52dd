"""Models join an answer when they are first needed, with its question in their own layout and tokens.

What keeps a model from joining, or two from working together, is said here. Nothing is asked of an engine.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rsd_cli.decoding.trajectory import Answerer, Critic
from rsd_cli.engine.speculation import check_pair, vocabularies_differ
from rsd_cli.errors import ModelError, RSDError, UsageError
from rsd_cli.rewards.families import Confidence, Solution

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rsd_cli.decoding.trajectory import Participant, Problem, Trajectory
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.seats import Engine
    from rsd_cli.engine.templates import Message
    from rsd_cli.records import Author, Role
    from rsd_cli.rewards.families import Family

STEP_ROOM = 32  # tokens that a context must have left for one step
DROP_TURNS = "Drop its oldest turns (in a chat with /compact)"


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
        """How the PRM scores; None for strategies without one. It waits for the model that it reads with."""
        ...

    @property
    def watches_draft(self) -> bool:
        """Whether the draft's own probabilities are the rewards; said before any model is loaded."""
        ...

    @property
    def critic(self) -> Role:
        """Whose engine the PRM reads with: its own, or the draft's if it is a head on that."""
        ...


class TwoVocabulariesError(UsageError):
    """Draft and target would have to share a vocabulary, and do not."""


class TooLongError(UsageError):
    """A question leaves a model no room for a step."""


class UnanswerableError(Exception):
    """A model can't be asked this."""

    def __init__(self, error: RSDError) -> None:
        super().__init__(error.message)
        self.error = error


@contextmanager
def failing_alone() -> Iterator[None]:
    """What a model refuses in here fails one answer, not the run."""
    try:
        yield
    except ModelError as error:
        raise UnanswerableError(error) from error


def check_vocabularies(draft: Model, target: Model) -> None:
    """Refuse models of which one does not have the other's tokens; TwoVocabulariesError."""
    differing = vocabularies_differ(draft, target)
    if differing:
        raise TwoVocabulariesError(
            f"This strategy needs a draft and a target of one vocabulary, not {draft.path.name} and "
            f"{target.path.name}: {differing}.",
            "Choose another trio, or another --strategy.",
        )


class Participants:
    """The models of a trio, as they join answers."""

    def __init__(self, trio: Trio) -> None:
        self._trio = trio

    def of(self, trajectory: Trajectory, role: Role) -> Participant:
        """The model in this answer; it joins it if it has not yet."""
        if role not in trajectory.participants:
            engine = self._trio.engine(role)
            participant = self._join(trajectory, role, engine.model)
            with failing_alone():  # a PRM's layout may have turns that its template refuses
                tokens = len(participant.prompt)
            self._check_room(trajectory.problem, role, engine, tokens)
            trajectory.join(role, participant)
        return trajectory.participants[role]

    def answerer(self, trajectory: Trajectory, author: Author) -> Answerer:
        """The same of a model that writes."""
        participant = self.of(trajectory, author)
        if not isinstance(participant, Answerer):
            raise TypeError(f"the {author} writes nothing")
        return participant

    def check_pair(self) -> None:
        """Whether the draft may propose tokens to the target, as llama.cpp asks it."""
        with failing_alone():
            check_pair(self._trio.engine("draft").model, self._trio.engine("target").model)

    def check_vocabularies(self) -> None:
        """Whether draft and target have the very same tokens."""
        try:
            check_vocabularies(self._trio.engine("draft").model, self._trio.engine("target").model)
        except TwoVocabulariesError as error:
            raise UnanswerableError(error) from error

    def _join(self, trajectory: Trajectory, role: Role, model: Model) -> Participant:
        problem = trajectory.problem
        question = problem.question
        if role != "prm":
            with failing_alone():
                prompt = self._trio.prompt(role, trajectory.settings.system, question, problem.before)
            return Answerer(model, prompt)
        family = self._trio.family
        if family is None or isinstance(family, Confidence):
            raise TypeError(f"{family} reads nothing")
        return Critic(family, Solution(question, earlier=problem.earlier))

    @staticmethod
    def _check_room(problem: Problem, role: Role, engine: Engine, tokens: int) -> None:
        over = tokens + STEP_ROOM - engine.n_ctx
        if over > 0:
            asked, way_out = "The question", "Shorten it"
            if problem.before:
                asked, way_out = "The conversation with this question", DROP_TURNS
            error = TooLongError(
                f"{asked} is {tokens:,} tokens long for the {role} model, {over:,} too many for its context "
                f"of {engine.n_ctx:,} with {STEP_ROOM} left for a step.",
                f"{way_out}, or raise --ctx (this model was trained for {engine.model.n_ctx_train:,}).",
            )
            raise UnanswerableError(error)
