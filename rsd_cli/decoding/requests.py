"""Makes a policy's requests jobs of the engines, in each model's own tokens, and what they find its answers.

It steps no engine and knows nothing of what is asked next.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from rsd_cli.decoding.events import Reading
from rsd_cli.decoding.participants import Participants, failing_alone
from rsd_cli.decoding.policies import Check, Grade, Judge, Likelihood, Proposal, Propose, Write
from rsd_cli.decoding.trajectory import Pending
from rsd_cli.engine import jobs
from rsd_cli.engine.jobs import ContextOverflow
from rsd_cli.engine.sampling import Sampling
from rsd_cli.engine.templates import Message
from rsd_cli.errors import ModelError
from rsd_cli.rewards.digits import QUESTION, asked_behind, grade, grading
from rsd_cli.rewards.draft_head import DraftHead
from rsd_cli.rewards.families import Confidence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rsd_cli.decoding.participants import Trio
    from rsd_cli.decoding.policies import Request
    from rsd_cli.decoding.trajectory import Answer, Trajectory
    from rsd_cli.records import Author, Role

    Found = jobs.Written | jobs.Observed | jobs.Proposed | jobs.Checked

NO_REWARD = math.nan  # of a PRM that gave none: below every threshold


def proposal(request: Write, written: jobs.Written) -> Proposal:
    """The step, with what was known of it when it was begun."""
    step = Proposal(
        author=request.author,
        text=written.text,
        ids=written.tokens,
        ended=written.ended,
        logprob=written.logprob,
        ms=written.ms,
        entropy=written.drawn[0].entropy if written.drawn else math.nan,
    )
    begun = request.begun
    if begun is None:
        return step
    logprob, ms = step.logprob + begun.logprob, step.ms + begun.ms
    return replace(step, logprob=logprob, ms=ms, entropy=begun.entropy)


class Requests:
    """Asks the engines of a trio on behalf of trajectories, and understands what they say."""

    def __init__(self, trio: Trio) -> None:
        self._trio = trio
        self._participants = Participants(trio)

    def submit(self, trajectory: Trajectory, request: Request) -> Answer | Pending:
        """Make a request an engine's job; gives the answer at once where it needs no engine."""
        if isinstance(request, Write | Propose | Check):
            return self._sample(trajectory, request)
        try:
            if isinstance(request, Judge):
                return self._judge(trajectory, request)
            if isinstance(request, Grade):
                return self._grade(trajectory, request)
            if isinstance(request, Likelihood):
                return self._likelihood(trajectory, request)
        except ContextOverflow:
            return NO_REWARD
        raise AssertionError(f"{request} is no engine's work")

    def _sample(self, trajectory: Trajectory, request: Write | Propose | Check) -> Answer | Pending:
        if isinstance(request, Write):
            return self._write(trajectory, request)
        if isinstance(request, Propose):
            return self._propose(trajectory, request)
        return self._check(trajectory, request)

    def _submit(self, trajectory: Trajectory, role: Role, lane: int, job: jobs.Job) -> Pending:
        seats = trajectory.seats
        self._trio.engine(role).submit(seats[lane], job, seats if len(seats) > 1 else ())
        return Pending(role, lane)

    def _write(self, trajectory: Trajectory, request: Write) -> Proposal | Pending:
        author, begun = request.author, request.begun
        left = trajectory.tokens_left - sum(len(step.ids) for step in request.after)
        if begun and (begun.ended != "max_tokens" or len(begun.ids) >= left):
            return begun
        before = self._context(trajectory, author, request.after)
        seed = trajectory.next_seed(author)
        job = self._job(trajectory, author, before, seed, left)
        more = request.max_tokens
        job = replace(
            job,
            context=[*before, *(begun.ids if begun else ())],
            begun=len(begun.ids) if begun else 0,
            max_tokens=left if more is None else min(left, more),
            watch=job.watch or request.watch,
        )
        return self._submit(trajectory, author, request.lane, job)

    def _job(
        self, trajectory: Trajectory, author: Author, context: Sequence[int], seed: int, max_tokens: int
    ) -> jobs.Write:
        settings = trajectory.settings
        return jobs.Write(
            context=context,
            sampling=settings.sampling or Sampling(),
            seed=seed,
            separator=settings.separator,
            max_tokens=max_tokens,
            watch=author == "draft" and self._trio.watches_draft,
        )

    def _propose(self, trajectory: Trajectory, request: Propose) -> jobs.Proposed | Pending:
        """Nothing where there is room for one more token only, which the target samples without being asked to."""
        known = self._participants
        known.check_pair()
        draft, target = known.answerer(trajectory, "draft"), known.answerer(trajectory, "target")
        begun = request.begun.ids
        context = [*draft.context, *draft.known(begun)]
        left = trajectory.tokens_left - len(begun) - 1
        room = self._trio.engine("target").n_ctx - len(target.context) - len(begun) - 1
        n = min(request.n, left, room, self._trio.engine("draft").n_ctx - len(context))
        if n <= 0:
            return jobs.Proposed(trajectory.seats[request.lane], (), 0.0)
        write = self._job(trajectory, "draft", context, trajectory.next_seed("draft"), len(begun) + n)
        job = jobs.Propose(**vars(replace(write, begun=len(begun), watch=False)), p_min=request.p_min)
        return self._submit(trajectory, "draft", request.lane, job)

    def _check(self, trajectory: Trajectory, request: Check) -> Pending:
        self._participants.check_pair()
        begun = request.begun.ids
        context = [*self._participants.answerer(trajectory, "target").context, *begun]
        seed, left = trajectory.next_seed("target"), trajectory.tokens_left
        write = self._job(trajectory, "target", context, seed, left)
        write = replace(write, begun=len(begun), watch=request.watch)
        job = jobs.Check(**vars(write), guesses=request.guesses)
        return self._submit(trajectory, "target", request.lane, job)

    def _context(self, trajectory: Trajectory, author: Author, after: Sequence[Proposal] = ()) -> list[int]:
        """What an author knows, with steps behind it that are not kept yet."""
        known = self._participants.of(trajectory, author).context
        return [*known, *(token for step in after for token in self._ids(trajectory, author, step))]

    def _ids(self, trajectory: Trajectory, author: Author, step: Proposal) -> Sequence[int]:
        """A step in an author's tokens."""
        return self._participants.answerer(trajectory, author).ids(step, author)

    def _judge(self, trajectory: Trajectory, request: Judge) -> float | Pending:
        family, step = self._trio.family, request.step
        if isinstance(family, Confidence):
            return family.reward(step.logprob, len(step.ids))
        if family is None:
            raise TypeError("this strategy has no PRM")
        if isinstance(family, DraftHead) and self._trio.critic == "draft":
            return self._judge_in_place(trajectory, request, family)
        self._participants.of(trajectory, "prm")
        with failing_alone():  # a chat template may be rendered anew for each number of steps
            job = family.job(trajectory.solution(step, request.after))
        return self._submit(trajectory, "prm", request.lane, job)

    def _judge_in_place(self, trajectory: Trajectory, request: Judge, family: DraftHead) -> Pending:
        """Read the state of the draft's own last token, in the decode that its next step begins with.

        Among several candidates nobody knows yet which one that follows. Who was watched will be watched again.
        """
        step = request.step
        before = self._context(trajectory, "draft", request.after)
        own = self._ids(trajectory, "draft", step)
        context = [*before, *(family.closed(own) if step.ended == "eog" else own)]
        seed, left = trajectory.coming_seed(), trajectory.tokens_left - len(step.ids)
        may_go_on = len(trajectory.seats) == 1 and step.author == "draft"
        goes_on = may_go_on and step.ended == "separator" and left > 0
        ahead = self._job(trajectory, "draft", context, seed, left) if goes_on else None
        if ahead and not math.isnan(step.entropy):
            ahead = replace(ahead, watch=True)
        return self._submit(trajectory, "draft", request.lane, family.own_job(context, ahead))

    def _grade(self, trajectory: Trajectory, request: Grade) -> Pending:
        """Let the target read the step and the question about it, which its next job cuts off again."""
        before, own = self._context(trajectory, "target"), self._ids(trajectory, "target", request.step)
        prompt = self._participants.of(trajectory, "target").prompt
        model = self._trio.engine("target").model
        with failing_alone():
            asked = asked_behind(prompt, self._conversation(trajectory), model)
            job = grading([*before, *own], len(own), asked, model)
        return self._submit(trajectory, "target", request.lane, job)

    def _conversation(self, trajectory: Trajectory) -> list[int] | None:
        """The target's prompt with an empty answer and the question about it, if its template has such turns."""
        problem = trajectory.problem
        turns = (*problem.before, Message("user", problem.question), Message("assistant", ""))
        try:
            return self._trio.prompt("target", trajectory.settings.system, QUESTION, turns)
        except ModelError:
            return None

    def _likelihood(self, trajectory: Trajectory, request: Likelihood) -> Pending:
        """Let the target read the draft's own tokens, and say how probable each was."""
        self._participants.check_vocabularies()
        ids = request.step.ids
        before = self._context(trajectory, "target")
        boundaries = (len(before) - 1, len(before) + len(ids) - 1)
        job = jobs.Read([*before, *ids[:-1]], (), boundaries, followers=ids)
        return self._submit(trajectory, "target", request.lane, job)

    def unread(self, trajectory: Trajectory) -> Iterator[Reading]:
        """What is about to be read for its requests; the first decode of a long text may take seconds."""
        for each in trajectory.answers:
            if isinstance(each, Pending):
                fed = self._trio.engine(each.role).reading(trajectory.seats[each.lane])
                if fed:
                    yield Reading(trajectory.problem.id, each.role, fed.done, fed.total)

    def unfinished(self, trajectory: Trajectory) -> list[Proposal]:
        """What is there of the steps being written or judged, of several the first."""
        request = next(iter(trajectory.requests), None)
        if isinstance(request, Judge | Write) and request.beside:
            return [request.beside]
        if isinstance(request, Judge):
            return [*request.after, request.step]
        if isinstance(request, Grade | Likelihood):
            return [request.step]
        if isinstance(request, Propose | Check):
            return [request.begun] if request.begun.text.strip() else []
        if not isinstance(request, Write):
            return []
        first = trajectory.answers[0] if trajectory.answers else None
        step = first if isinstance(first, Proposal) else self._partial(trajectory, request)
        return [*request.after, step] if step and step.text.strip() else [*request.after]

    def _partial(self, trajectory: Trajectory, request: Write) -> Proposal | None:
        if request.author not in trajectory.participants:
            return None
        written = self._trio.engine(request.author).partial(trajectory.seats[request.lane])
        return proposal(request, written) if written else None

    def answer(self, trajectory: Trajectory, pending: Pending, update: Found) -> Answer:
        """What an engine found out, as an answer to the request that it was asked for."""
        request = trajectory.asked(pending)
        if isinstance(update, jobs.Proposed):
            return update
        if isinstance(update, jobs.Checked):
            trajectory.refused += update.refused
            return update
        if isinstance(request, Write) and isinstance(update, jobs.Written):
            return self._bounded(trajectory, request, proposal(request, update))
        if isinstance(update, jobs.Observed):
            if isinstance(request, Judge):
                return self._reward(trajectory, request, update)
            if isinstance(request, Grade):
                return grade(update)
            if isinstance(request, Likelihood):
                return update.logprob
        raise AssertionError(f"{update} answers no {request}")

    @staticmethod
    def _bounded(trajectory: Trajectory, request: Write, step: Proposal) -> Proposal:
        """The step; nothing can follow one that took the answer's last token, even if a separator ends it."""
        left = trajectory.tokens_left - sum(len(each.ids) for each in (*request.after, step))
        return replace(step, ended="max_tokens") if step.ended == "separator" and left <= 0 else step

    def _reward(self, trajectory: Trajectory, request: Judge, observed: jobs.Observed) -> float:
        """The newest step's reward; what is no finite number counts as none, so that the step is rejected."""
        family = self._trio.family
        if family is None or isinstance(family, Confidence):
            raise TypeError(f"{family} reads nothing")
        reward = family.reward(observed, trajectory.solution(request.step, request.after))
        return reward if math.isfinite(reward) else NO_REWARD
