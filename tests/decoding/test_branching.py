"""Several candidates side by side, fed by hand: which stays, and what becomes of the others."""

import math
import random
from collections import Counter
from dataclasses import replace

import pytest

from rsd_cli.decoding.branching import EXPANSIONS, beam, best, gsi, process_best_of_n, rsd_n, soft
from rsd_cli.decoding.policies import Judge, Keep, Likelihood, Write
from rsd_cli.decoding.weighting import Draws
from tests.decoding.playing import play, proposal


def accepts(delta):
    return lambda reward: reward >= delta


def scoring(**rewards):
    """Steps of each author by lane that say what they will be rewarded with."""

    def writes(request):
        return proposal(
            request.author, f"{request.author} {request.lane}: {rewards[request.author][request.lane]}"
        )

    return writes


def test_the_best_is_the_first_of_equals_and_never_what_has_no_reward():
    assert best([0.1, 0.7, 0.7]) == 1
    assert best([math.nan, 0.0]) == 1
    assert best([math.nan, math.nan]) == 0
    assert best([-3.0, -2.0, math.nan]) == 1


def test_soft_best_of_n_draws_by_the_exponential_of_the_reward():
    rewards, beta = [0.1, math.nan, 0.5, 0.3], 5.0
    pick = soft(beta, Draws("x"))
    n = 8_000
    drawn = Counter(pick(rewards) for _ in range(n))
    weights = {i: math.exp(beta * reward) for i, reward in enumerate(rewards) if not math.isnan(reward)}
    assert set(drawn) == set(weights)
    for i, weight in weights.items():
        p = weight / sum(weights.values())
        assert abs(drawn[i] / n - p) < 4 * math.sqrt(p * (1 - p) / n)
    assert soft(1e6, Draws("y"))(rewards) == 2
    assert soft(1.0, Draws("z"))([math.nan, math.nan]) == 0


@pytest.mark.parametrize("n", [1, 4])
def test_rsd_n_lets_the_best_of_n_drafts_stand_before_the_criterion(n):
    rewards = [0.2, 0.6, 0.5, 0.6][:n]
    writes = scoring(draft=rewards, target=[1.0])
    for delta, author in ((max(rewards), "draft"), (max(rewards) + 0.01, "target")):
        made = play(rsd_n(accepts(delta), n, best), writes, steps=2)
        assert made.asked[0] == [Write("draft", lane) for lane in range(n)]
        assert [judge.lane for judge in made.asked[1]] == list(range(n))
        place = rewards.index(max(rewards))
        for keep in made.kept:
            assert keep.step.author == author
            others = [f"draft {i}: {rewards[i]}" for i in range(n) if i != place]
            assert [each.text for each in keep.others] == others
            if author == "draft":
                assert (keep.reward, keep.rejected) == (max(rewards), None)
            else:
                assert keep.rejected
                assert keep.rejected.text == f"draft {place}: {max(rewards)}"


def test_process_best_of_n_keeps_the_prms_favourite():
    made = play(process_best_of_n("target", 3, best), scoring(target=[0.2, 0.9, math.nan]))
    assert [keep.reward for keep in made.kept] == [0.9] * 3
    assert [each.reward for each in made.kept[0].others] == [0.2, None]
    nothing = play(process_best_of_n("draft", 2, best), scoring(draft=[math.nan, math.nan]), steps=1)
    assert nothing.kept[0].reward is None


@pytest.mark.parametrize(("told", "author"), [([-0.5, -6.5], "draft"), ([-6.5, -0.5], "target")])
def test_gsi_tilts_rewards_towards_what_the_target_would_write(told, author):
    """Rewards 0.6 and 0.3; the likelier of the two by the target keeps its own, the other loses 6/20."""
    writes = scoring(draft=[0.6, 0.3], target=[0.1, 0.8])
    made = play(gsi(accepts(0.5), 2, 20.0, best), writes, 1, tells=lambda step: told[int(step.text[6])])
    assert made.asked[0] == [Write("draft", lane, watch=True) for lane in range(2)]
    assert [type(request) for request in made.asked[1]] == [Judge, Judge, Likelihood, Likelihood]
    (keep,) = made.kept
    assert keep.step.author == author
    if author == "draft":
        assert keep.reward == pytest.approx(0.6)
        assert [each.reward for each in keep.others] == [pytest.approx(0.3 - 6 / 20)]
    else:
        assert keep.reward == 0.8
        assert keep.rejected
        assert keep.rejected.reward == pytest.approx(0.3)
        assert [each.text for each in keep.others] == ["draft 1: 0.3", "target 0: 0.1"]


def test_what_the_target_can_not_weigh_is_rejected_by_gsi():
    writes = scoring(draft=[0.9, 0.8], target=[0.1, 0.2])
    made = play(gsi(accepts(0.5), 2, 20.0, best), writes, 1, tells=lambda _: math.nan)
    assert made.kept[0].step.author == "target"
    assert made.kept[0].rejected
    assert made.kept[0].rejected.reward is None


class Tree:
    """A beam search's world: every step is a digit, a text is rewarded by a rule, and ends at a depth."""

    def __init__(self, reward, depth, choices=3, seed=0, max_steps=100):
        self.rng, self.reward, self.depth, self.choices = random.Random(seed), reward, depth, choices
        self.kept, self.max_steps = "", max_steps

    def writes(self, request):
        before = self.kept + "".join(step.text for step in request.after)
        text = before + str(self.rng.randrange(self.choices))
        return proposal("draft", text[-1], (1,), "eog" if len(text) == self.depth else "separator")

    def run(self, n):
        asked, policy = [], beam("draft", n, self.max_steps)
        try:
            request = next(policy)
            while True:
                asked.append(request)
                request = policy.send(self.answer(request))
        except StopIteration as stop:
            self.ended = stop.value
        return asked

    def answer(self, request):
        if isinstance(request, list):
            return [self.answer(each) for each in request]
        if isinstance(request, Write):
            return self.writes(request)
        if isinstance(request, Judge):
            texts = [step.text for step in (*request.after, request.step)]
            return self.reward(self.kept + "".join(texts))
        assert isinstance(request, Keep)
        self.kept += request.step.text
        if request.step.ended == "eog":
            return "eog"
        return "max_steps" if len(self.kept) == self.max_steps else None


@pytest.mark.parametrize("n", [1, 2, 4])
def test_beam_search_finds_the_best_text_that_it_can_see(n):
    def ones(text):
        return text.count("1") / 10

    for seed in range(20):
        tree = Tree(ones, depth=5, seed=seed)
        asked = tree.run(n)
        assert len(tree.kept) == 5
        assert tree.ended == "eog"
        writes = [[each for each in one if isinstance(each, Write)] for one in asked if isinstance(one, list)]
        rounds = [one for one in writes if one]
        assert len(rounds[0]) == n * EXPANSIONS, "the first step uses every lane"
        for one in rounds:
            lanes = [request.lane for request in one]
            assert len(set(lanes)) == len(lanes) <= n * EXPANSIONS
            assert all(0 <= lane < n * EXPANSIONS for lane in lanes)
    found = [Tree(ones, depth=5, seed=seed) for seed in range(40)]
    for tree in found:
        tree.run(n)
    assert sum(tree.kept.count("1") for tree in found) / 40 > 5 * (0.75 if n == 1 else 0.84)


def test_a_beam_that_was_worse_at_first_can_win():
    """The greedy way is 1, whose every continuation is worth little; 0 pays later."""
    rewards = {"1": 0.9, "0": 0.8, "10": 0.1, "11": 0.1, "00": 0.2, "01": 1.0}
    tree = Tree(lambda text: rewards[text], depth=2, choices=2, seed=1)
    tree.run(2)
    assert tree.kept == "01"


def test_beams_that_say_the_same_are_one():
    tree = Tree(lambda _: 0.5, depth=4, choices=1)
    asked = tree.run(4)
    assert tree.kept == "0000"
    kept = [request for request in asked if isinstance(request, Keep)]
    assert len(kept) == 4
    assert asked.index(kept[0]) == 2, "a step that all beams share is kept at once"


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("max_steps", [3, 100])
def test_a_beam_search_tells_of_every_candidate_with_the_step_that_stands_in_its_place(n, max_steps):
    for seed in range(10):
        tree = Tree(lambda text: text.count("1") / 10, depth=5, seed=seed, max_steps=max_steps)
        asked = tree.run(n)
        kept = [request for request in asked if isinstance(request, Keep)]
        rounds = [one for one in asked if isinstance(one, list) and isinstance(one[0], Judge)]
        assert len(rounds) == len(kept) == min(5, max_steps)
        for keep, judged in zip(kept, rounds, strict=True):
            assert len(keep.others) == len(judged) - 1
            texts = Counter(each.text for each in keep.others) + Counter([keep.step.text])
            assert texts == Counter(each.step.text for each in judged)


class Short(Tree):
    """The same, but an answer that begins with 1 is over."""

    def writes(self, request):
        step = super().writes(request)
        return replace(step, ended="eog") if step.text == "1" and not request.after else step


def test_candidates_beyond_the_last_step_stand_with_it():
    """The shorter text is the best in the end; what the other beam tried in vain is told with it."""
    tree = Short(lambda text: {"1": 0.9, "0": 0.8}.get(text, 0.1), depth=3, choices=2, seed=1)
    asked = tree.run(2)
    (keep,) = [request for request in asked if isinstance(request, Keep)]
    judged = [each for one in asked if isinstance(one, list) for each in one if isinstance(each, Judge)]
    assert keep.step.text == "1"
    assert len(judged) > 8
    assert len(keep.others) == len(judged) - 1


def test_a_beam_ends_at_the_last_step_that_is_allowed():
    tree = Tree(lambda text: text.count("1") / 10, depth=50, seed=3, max_steps=3)
    tree.run(2)
    assert tree.ended == "max_steps"
    assert len(tree.kept) == 3


def test_rewards_that_are_none_lose_every_comparison_of_beams():
    tree = Tree(lambda text: math.nan if text.endswith("1") else 0.1, depth=4, seed=5)
    tree.run(2)
    assert "1" not in tree.kept
