"""What came after the paper: other ways to decide, step by step, whether the draft or the target writes.

Policies as in policies.py, each with one candidate of a model at a time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rsd_cli.decoding.policies import Grade, Judge, Keep, Write, candidate, gate, known, rejection, rsd
from rsd_cli.rewards.families import Confidence

if TYPE_CHECKING:
    from rsd_cli.decoding.policies import Policy, Proposal
    from rsd_cli.decoding.weighting import Accepts
    from rsd_cli.records import Author, EndedBy


def keep_better(accepts: Accepts) -> Policy:
    """RSD that has a rewritten step judged as well and keeps the draft's where that scored more.

    The oracle of Arbitrage (arXiv 2512.05033), which trains a router to foresee it: of the steps that RSD rejects
    about 60% gain nothing by being rewritten. Where a reward is missing the target's step stays.
    """
    while True:
        draft: Proposal = yield Write("draft")
        reward: float = yield Judge(draft)
        ended: EndedBy | None
        if accepts(reward):
            ended = yield Keep(draft, reward)
        else:
            step: Proposal = yield Write("target", watch=True)
            earned: float = yield Judge(step)
            if reward > earned:
                ended = yield Keep(draft, reward, others=(candidate(step, earned),))
            else:
                ended = yield Keep(step, known(earned), rejection(draft, reward))
        if ended:
            return ended


def judge(accepts: Accepts) -> Policy:
    """SpecReason (arXiv 2504.07891): the target grades each draft step from 0 to 9; no PRM.

    Grading reads and writes nothing, so the target has an accepted step in its memory already. The paper accepts
    grades from 7 on.
    """
    return rsd(accepts, Grade)


def confidence(accepts: Accepts) -> Policy:
    """The draft's own probabilities decide: exp(mean log p) of the step's tokens; no PRM.

    The gate of ConfSpec (arXiv 2602.18447) without its second threshold, and the log-probability part of SpecGuard
    (arXiv 2604.15244).
    """
    while True:
        draft: Proposal = yield Write("draft", watch=True)
        sureness = Confidence().reward(draft.logprob, len(draft.ids))
        if ended := (yield from gate(accepts, draft, sureness)):
            return ended


def glimpse(accepts: Accepts, looker: Author) -> Policy:
    """GlimpRouter (arXiv 2601.05110): the entropy of a step's first token decides who writes it; no PRM.

    exp(-entropy) stands for the reward, so that the paper's tau is the threshold exp(-tau). No more than one token
    is drafted in vain. The paper looks with the draft; with the target every step is read by both.
    """
    while True:
        first: Proposal = yield Write(looker, watch=True, max_tokens=1)
        calm = math.exp(-first.entropy)
        author: Author = "draft" if accepts(calm) else "target"
        step: Proposal = yield Write(author, begun=first if author == looker else None)
        wasted = rejection(first, calm) if looker == "draft" and author == "target" else None
        ended: EndedBy | None = yield Keep(step, calm if author == "draft" else None, wasted)
        if ended:
            return ended


def first_by_target(n: int) -> Policy:
    """The target writes the first n steps, the draft the rest: the plan is where a strong model pays most.

    An option of SpecReason (arXiv 2504.07891), here by itself; nobody judges.
    """
    kept = 0
    while True:
        step: Proposal = yield Write("target" if kept < n else "draft")
        ended: EndedBy | None = yield Keep(step)
        kept += 1
        if ended:
            return ended
