"""Successors of RSD, fed by hand: who writes, who is asked, and what the record will say."""

import math

import pytest

from rsd_cli.decoding.policies import Grade, Judge, Keep, Write, judged
from rsd_cli.decoding.successors import confidence, first_by_target, glimpse, judge, keep_better
from rsd_cli.records import Author, Candidate, Rejected
from tests.decoding.playing import play, proposal


def accepts(delta):
    return lambda reward: reward >= delta


def writing(**texts):
    """Each author's step, whatever the request."""
    steps = {author: proposal(author, text) for author, text in texts.items()}
    return steps, lambda request: steps[request.author]


@pytest.mark.parametrize(
    ("draft", "target", "kept"),
    [
        (0.8, 0.9, "draft"),  # accepted: nobody compares
        (0.5, 0.6, "target"),
        (0.5, 0.4, "draft"),
        (0.5, 0.5, "target"),
        (math.nan, 0.1, "target"),
        (0.5, math.nan, "target"),
        (math.nan, math.nan, "target"),
    ],
)
def test_keep_better_keeps_what_scores_more(draft, target, kept):
    steps, writes = writing(draft=f"d: {draft}", target=f"t: {target}")
    made = play(keep_better(accepts(0.7)), writes, steps=1)
    (keep,) = made.kept
    assert keep.step is steps[kept]
    known = {"draft": draft, "target": None if math.isnan(target) else target}
    assert keep.reward == known[kept]
    if draft >= 0.7:
        assert made.asked == [Write("draft"), Judge(steps["draft"]), keep]
        assert (keep.rejected, keep.others) == (None, ())
    elif kept == "draft":
        assert keep.rejected is None
        assert keep.others == (Candidate(steps["target"].text, "target", target, 3),)
    else:
        assert keep.rejected == Rejected(steps["draft"].text, None if math.isnan(draft) else draft, 3)
        assert keep.others == ()


@pytest.mark.parametrize(("grade", "author"), [(7 / 9, "draft"), (0.7, "target"), (math.nan, "target")])
def test_the_targets_grade_decides_without_a_prm(grade, author):
    steps, writes = writing(draft="a\n\n", target="b\n\n")
    made = play(judge(accepts(7 / 9)), writes, grades=lambda _: grade)
    assert [keep.step.author for keep in made.kept] == [author] * 3
    assert Grade(steps["draft"]) in made.asked
    assert not any(isinstance(request, Judge) for request in made.asked)


@pytest.mark.parametrize("sure", [0.95, 0.5])
def test_the_drafts_own_probabilities_decide(sure):
    draft = proposal("draft", ids=range(4), logprob=4 * math.log(sure))
    made = play(
        confidence(accepts(0.9)), lambda request: draft if request.author == "draft" else proposal("target")
    )
    assert made.asked[0] == Write("draft", watch=True)
    assert [keep.step.author for keep in made.kept] == ["draft" if sure > 0.9 else "target"] * 3
    told = made.kept[0].rejected or made.kept[0]
    assert told.reward == pytest.approx(sure)


@pytest.mark.parametrize("looker", ["draft", "target"])
@pytest.mark.parametrize("entropy", [0.2, 3.0])
def test_the_first_token_decides_and_whoever_drew_it_goes_on(looker, entropy):
    first = proposal(looker, "So", (7,), "max_tokens", entropy=entropy)

    def writes(request):
        return first if request.max_tokens == 1 else proposal(request.author, "So 2.\n\n", (7, 8))

    made = play(glimpse(accepts(0.37), looker), writes, steps=1)
    author: Author = "draft" if entropy < 1 else "target"
    begun = first if author == looker else None
    assert made.asked[:2] == [Write(looker, watch=True, max_tokens=1), Write(author, begun=begun)]
    (keep,) = made.kept
    assert keep.reward == (pytest.approx(math.exp(-entropy)) if author == "draft" else None)
    wasted = Rejected("So", math.exp(-entropy), 1)
    assert keep.rejected == (wasted if (looker, author) == ("draft", "target") else None)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_target_writes_the_first_steps(n):
    made = play(first_by_target(n), lambda request: proposal(request.author), steps=4)
    authors = [keep.step.author for keep in made.kept]
    assert authors == ["target"] * min(n, 4) + ["draft"] * (4 - min(n, 4))
    assert all(isinstance(request, Write | Keep) for request in made.asked)


@pytest.mark.parametrize("author", ["draft", "target"])
def test_what_is_chosen_from_has_a_reward_for_every_step(author):
    rewards = iter([0.3, math.nan, 0.0])
    made = play(judged(author), lambda request: proposal(request.author), judges=lambda _: next(rewards))
    assert [keep.reward for keep in made.kept] == [0.3, None, 0.0]
    assert made.ended == "eog"


@pytest.mark.parametrize("ended", ["eog", "max_tokens", "max_steps", "context"])
@pytest.mark.parametrize("reward", [0.9, 0.1])
@pytest.mark.parametrize("start", [keep_better, judge, confidence, lambda rule: glimpse(rule, "draft")])
def test_a_policy_ends_with_the_reason_that_keeping_a_step_gives(start, reward, ended):
    policy = start(accepts(0.5))
    request = next(policy)
    while not isinstance(request, Keep):
        sure = proposal("draft", logprob=3 * math.log(reward), entropy=-math.log(reward))
        request = policy.send(sure if isinstance(request, Write) else reward)
    with pytest.raises(StopIteration) as stop:
        policy.send(ended)
    assert stop.value.value == ended
