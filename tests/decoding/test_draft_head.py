"""A head on the draft's own states in the runner: what it costs, what it scores, and rewards that are none."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from rsd_cli.decoding.events import Judged
from rsd_cli.decoding.runner import Finished, Runner
from rsd_cli.engine.templates import ChatTemplate, Renderer
from rsd_cli.rewards.draft_head import DraftHead
from rsd_cli.rewards.families import Confidence, Solution
from rsd_cli.rewards.features import FEATURES
from rsd_cli.rewards.scoring import score
from tests.decoding.test_runner import CAST, ENDLESS, PROBLEMS, SETTINGS, answered, texts, trio
from tests.engine.driving import finish
from tests.rewards.test_readers import a_head
from tests.tiny_gguf import CHATML

__all__ = ["trio"]  # the fixture
TWO = {role: CAST[role] for role in ("draft", "target")}


@pytest.fixture
def head_on(tiny_model):
    """The family on a draft's model, as the runner's trios have it."""
    renderer = Renderer()

    def make(**options):
        model = tiny_model("llama", seed=1, **options)
        made = a_head(model.n_embd, ("hidden", *FEATURES))
        return DraftHead(model, ChatTemplate(model, renderer), made, SETTINGS.system)

    yield make
    renderer.close()


@pytest.fixture
def head(head_on):
    """The same on the model that writes to the end of its tokens."""
    return head_on(favour=ENDLESS)


@pytest.mark.parametrize("seats", [1, 3, 8])
def test_rewards_while_decoding_equal_rewards_of_the_finished_text(seats, trio, head, tiny_engine):
    made = trio(TWO, favour=ENDLESS, family=head, seats=seats)
    middle = replace(SETTINGS, threshold=0.5)
    finished, _ = answered(made, settings=middle, seats=seats)
    assert {step.author for one in finished for step in one.trajectory.steps} == {"draft", "target"}
    engine = tiny_engine("llama", seed=1, favour=ENDLESS, n_ctx=1024)
    for one in finished:
        draft = one.trajectory.participants["draft"]
        context, before = list(draft.prompt), tuple[str, ...]()
        # The very tokens: random models write text that their tokenizer would cut otherwise.
        for step, ids in zip(one.trajectory.steps, draft.steps, strict=True):
            context, before = [*context, *ids], (*before, step.text)
            if step.author == "draft":
                engine.submit(0, head.own_job(context, None))
                again = head.reward(finish(engine)[-1], Solution(one.trajectory.problem.question, before))
                assert step.reward == pytest.approx(again, abs=0.02)
        engine.release(0)


WORDS = (" the", " is", " of", " and", " answer", " number", " equals", " then", " sum", " step")
PLAIN = dict.fromkeys((*WORDS, "\n\n"), 8.0) | {
    "<eos>": 7.5
}  # text that is cut into the tokens it was made of


@pytest.mark.parametrize("place", ["in the draft's memory", "in its own"])
@pytest.mark.parametrize("strategy", ["rsd", "keep-better"])
def test_an_answer_scored_again_from_its_text_has_the_rewards_of_its_decoding(
    strategy, place, trio, head_on, tiny_engine
):
    head = head_on(favour=PLAIN)
    cast = TWO if place == "in the draft's memory" else TWO | {"prm": TWO["draft"]}
    cast = {role: ("llama", seed) for role, (_, seed) in cast.items()}
    made = trio(cast, favour=PLAIN, family=head, rule=None)
    finished, _ = answered(made, settings=replace(SETTINGS, threshold=0.8, strategy=strategy))
    engine, last = tiny_engine("llama", seed=1, favour=PLAIN, n_ctx=1024), set()
    for one in finished:
        steps = one.trajectory.steps
        texts = tuple(step.text for step in steps)
        whole = Solution(one.trajectory.problem.question, texts, ended=one.ended_by == "eog")
        (again,) = score(engine, head, [("a", whole)])
        for step, reward in zip(steps, again.rewards, strict=True):
            assert step.reward is None or step.reward == pytest.approx(reward, abs=0.005)
        if whole.ended and steps[-1].reward is not None:
            last.add(steps[-1].author)
    assert last == ({"draft"} if strategy == "rsd" else {"draft", "target"})


@pytest.mark.parametrize("name", ["<|im_end|>", "<|eot_id|>"])
def test_an_answers_end_is_the_token_that_ends_a_turn(name, head_on, tiny_model):
    of_the_model = {"extra": ("<|eot_id|>",), "template": CHATML.replace("<|im_end|>", name)}
    head, model = head_on(**of_the_model), tiny_model("llama", seed=1, **of_the_model)
    end = model.tokenize(name, special=True)
    open_, ended = (Solution("What?", ("So 3.\n\n", "It is 3."), ended=ended) for ended in (False, True))
    assert head.context(ended) == [*head.context(open_), *end]
    assert head.context(ended.before) == head.context(open_.before)
    assert head.closed([1, *end]) == (1, *end)


@pytest.mark.parametrize("seats", [1, 3])
@pytest.mark.parametrize("strategy", ["rsd", "best-of-n@2", "process-best-of-n@1"])
def test_a_head_on_the_draft_decodes_no_token_more_and_changes_no_text(strategy, seats, trio, head):
    accepted = replace(SETTINGS, threshold=0.0, strategy=strategy)
    judged, _ = answered(trio(TWO, favour=ENDLESS, family=head, seats=seats), settings=accepted, seats=seats)
    alone = replace(SETTINGS, strategy="draft")
    plain, _ = answered(trio(TWO, favour=ENDLESS, seats=seats), settings=alone, seats=seats)
    assert texts(judged) == texts(plain)
    costs = [
        {one.trajectory.problem.id: one.usage["draft"].decoded for one in finished}
        for finished in (judged, plain)
    ]
    assert costs[0] == costs[1]
    assert all("prm" not in one.usage for one in judged)


@pytest.mark.parametrize("none", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_a_reject_and_null_in_the_record(none, trio, head, monkeypatch):
    monkeypatch.setattr(DraftHead, "reward", lambda *_: none)
    made = trio(TWO, favour=ENDLESS, family=head)
    finished, happened = answered(made, PROBLEMS[:2], replace(SETTINGS, threshold=0.0))
    steps = [step for one in finished for step in one.trajectory.steps]
    assert {step.author for step in steps} == {"target"}
    assert all(step.rejected and step.rejected.reward is None for step in steps)
    assert all(one.reward is None and not one.accepted for one in happened if isinstance(one, Judged))
    assert json.dumps([step.rejected.reward for step in steps if step.rejected], allow_nan=False)


def test_a_step_beyond_the_prms_context_goes_to_the_target(trio, monkeypatch):
    made = trio(favour=ENDLESS)
    monkeypatch.setattr(made.engine("prm"), "n_ctx", 240)
    finished, _ = answered(made, PROBLEMS[:1], replace(SETTINGS, threshold=0.0, max_tokens=300))
    rejected = [step.rejected for step in finished[0].trajectory.steps if step.rejected]
    assert rejected
    assert all(one.reward is None for one in rejected)
    assert finished[0].ended_by in ("max_tokens", "max_steps")


@pytest.mark.parametrize("family", ["head", "confidence", "reader"])
def test_an_audit_is_the_drafts_answer_with_some_of_the_targets_rewards(family, trio, head):
    audit = replace(SETTINGS, strategy="audit")
    chosen = {"head": head, "confidence": Confidence(), "reader": None}[family]
    made = trio(CAST if family == "reader" else TWO, favour=ENDLESS, family=chosen)
    finished = [one for one in Runner(made, audit).run(PROBLEMS[:3]) if isinstance(one, Finished)]
    steps = [step for one in finished for step in one.trajectory.steps]
    assert {step.author for step in steps} == {"draft"}
    audited = [step.audited for step in steps if step.audited is not None]
    assert audited
    assert all(0 <= earned <= 1 for earned in audited)
    assert family != "confidence" or any(earned < 1 for earned in audited)


def test_a_rejected_step_may_be_rewritten_over_proposals(trio, head):
    """The head's read has drawn a token ahead, which goes with the step; proposals follow in the same seat."""
    cast = {role: ("llama", seed) for role, seed in (("draft", 1), ("target", 2))}
    made = trio(cast, favour=ENDLESS, family=head, seats=3)
    finished, _ = answered(made, settings=replace(SETTINGS, threshold=1.1, speculative=True), seats=3)
    assert sorted(texts(finished)) == sorted(problem.id for problem in PROBLEMS)
    for one in finished:
        assert {step.author for step in one.trajectory.steps} == {"target"}
        drafted = sum(step.drafted for step in one.trajectory.kept)
        rejected = sum(step.rejected.tokens for step in one.trajectory.steps if step.rejected)
        draft = one.usage["draft"]
        assert draft.generated > rejected, "steps and proposals"
        assert draft.discarded == draft.generated - drafted
