"""Strategies by name: what a name means, what it needs, and how a run's rules reach its policy."""

import math
from typing import Any

import pytest

from rsd_cli.decoding.policies import Propose, Write
from rsd_cli.decoding.strategies import STRATEGIES, Rulebook, Rules, check_sampling, parse, rejects_nothing
from rsd_cli.decoding.trajectory import Problem, Settings
from rsd_cli.errors import UsageError

ALL = ("draft", "prm", "target")


@pytest.mark.parametrize(
    ("text", "name", "n", "author", "roles", "width", "samples"),
    [
        ("rsd", "rsd", 1, "draft", ALL, 1, 1),
        ("audit", "audit", 1, "draft", ALL, 1, 1),
        ("target", "target", 1, "draft", ("target",), 1, 1),
        ("draft", "draft", 1, "draft", ("draft",), 1, 1),
        ("speculative", "speculative", 1, "draft", ("draft", "target"), 1, 1),
        ("keep-better", "keep-better", 1, "draft", ALL, 1, 1),
        ("rsd-n@3", "rsd-n", 3, "draft", ALL, 3, 1),
        ("gsi", "gsi", 4, "draft", ALL, 4, 1),
        ("judge", "judge", 1, "draft", ("draft", "target"), 1, 1),
        ("glimpse", "glimpse", 1, "draft", ("draft", "target"), 1, 1),
        ("glimpse:target", "glimpse", 1, "target", ("target", "draft"), 1, 1),
        ("confidence", "confidence", 1, "draft", ("draft", "target"), 1, 1),
        ("first-k-by-target@2", "first-k-by-target", 2, "draft", ("target", "draft"), 1, 1),
        ("process-best-of-n@16", "process-best-of-n", 16, "draft", ("draft", "prm"), 16, 1),
        ("process-best-of-n@2:target", "process-best-of-n", 2, "target", ("target", "prm"), 2, 1),
        ("beam@4", "beam", 4, "draft", ("draft", "prm"), 16, 1),
        ("majority@8", "majority", 8, "draft", ("draft",), 1, 8),
        ("majority@64:target", "majority", 64, "target", ("target",), 1, 64),
        ("best-of-n@16", "best-of-n", 16, "draft", ("draft", "prm"), 1, 16),
        ("best-of-n@2:target", "best-of-n", 2, "target", ("target", "prm"), 1, 2),
    ],
)
def test_a_name_says_what_it_needs(text, name, n, author, roles, width, samples):
    strategy = parse(text)
    assert (strategy.name, strategy.n, strategy.author) == (name, n, author)
    assert (strategy.roles, strategy.width, strategy.samples) == (roles, width, samples)
    assert parse(str(strategy)) == strategy


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("majority", "majority@8"),
        ("majority@8:draft", "majority@8"),
        ("beam@2:target", "beam@2:target"),
        ("rsd", "rsd"),
    ],
)
def test_a_name_is_written_in_one_way(text, canonical):
    assert str(parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("majorty@8", "'majority'"),
        ("rds", "'rsd'"),
        ("keep_better", "'keep-better'"),
        ("Rsd", "'rsd'"),
        ("", "rsd, target"),
        ("quantum", "rsd, target"),
        ("majority@", "NAME[@N]"),
        ("majority@8@8", "NAME[@N]"),
        ("majority:", "NAME[@N]"),
        ("rsd@2", "Leave it out"),
        ("rsd:target", "Leave it out"),
        ("majority@0", "@1 to @256"),
        ("beam@65", "@1 to @64"),
        ("majority@8:prm", "draft, target"),
    ],
)
def test_what_is_no_strategy_is_refused_with_what_was_meant(text, word):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert word in caught.value.message + caught.value.hint
    assert caught.value.hint.endswith((".", "?"))


def rules(strategy):
    return Rules(lambda _: True, strategy.n, strategy.author, lambda _: 0, 1.0, 100)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_first_asks_the_first_of_its_roles(name):
    for text in [name, *(f"{name}:{author}" for author in STRATEGIES[name].authors)]:
        strategy = parse(text)
        request = next(strategy.start(rules(strategy)))
        asked = request if isinstance(request, list) else [request]
        writes = [each for each in asked if isinstance(each, Write | Propose)]
        assert {each.author if isinstance(each, Write) else "draft" for each in writes} == {strategy.roles[0]}
        assert [each.lane for each in writes] == list(range(len(writes)))
        assert len(writes) == strategy.width


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_gates_if_its_policy_has_the_criterion(name):
    asked = set()

    class Watched:
        def __getattr__(self, field):
            asked.add(field)
            return getattr(rules(parse(name)), field)

    watched: Any = Watched()
    STRATEGIES[name].start(watched)
    assert STRATEGIES[name].gates == ("accepts" in asked)


@pytest.mark.parametrize(
    "text", ["majority@2", "best-of-n@8", "rsd-n@2", "process-best-of-n@4", "beam@1", "gsi@2"]
)
def test_several_texts_need_a_temperature(text):
    check_sampling(parse(text), 0.1)
    with pytest.raises(UsageError, match="same text") as caught:
        check_sampling(parse(text), 0.0)
    assert "--temperature" in caught.value.hint


@pytest.mark.parametrize("text", ["rsd", "majority@1", "rsd-n@1", "first-k-by-target@3", "target"])
def test_one_text_needs_none(text):
    check_sampling(parse(text), 0.0)


def criterion(settings, name="p", branch=0, book=None):
    problem = Problem(name, "What?", branch=branch)
    return (book or Rulebook()).rules(parse(settings.strategy), settings, problem).accepts


def decisions(accepts, rewards):
    return [accepts(reward) for reward in rewards]


def test_a_rulebook_reads_the_threshold_and_the_weighting():
    assert decisions(criterion(Settings(threshold=0.5)), [0.5, 0.49, math.nan]) == [True, False, False]
    assert not any(decisions(criterion(Settings(weighting="constant:p=0")), [0.9] * 20))
    assert all(decisions(criterion(Settings(weighting="logistic:alpha=1e9", threshold=0.2)), [0.3] * 20))


def test_draws_belong_to_the_seed_the_problem_and_the_branch():
    rewards = [0.5] * 64
    made = Settings(weighting="constant", seed=1)
    first = decisions(criterion(made), rewards)
    assert first == decisions(criterion(made), rewards)
    others = [criterion(made, "q"), criterion(made, branch=1), criterion(Settings(weighting="constant"))]
    assert all(decisions(other, rewards) != first for other in others)


def test_a_budget_is_the_runs_or_each_problems():
    book, run = Rulebook(), Settings(target_share=0.5)
    one, two = criterion(run, "a", book=book), criterion(run, "b", book=book)
    decisions(one, [i / 100 for i in range(100)])
    assert one.budget is two.budget
    assert one.budget.steps == 100
    alone = Settings(target_share=0.5, share_per="problem")
    one, two = criterion(alone, "a", book=book), criterion(alone, "b", book=book)
    decisions(one, [0.1] * 10)
    assert (one.budget.steps, two.budget.steps) == (10, 0)


def test_each_strategy_has_a_budget_of_its_own():
    """Half of each one's steps, though all that one of them earned is less than all of the other's."""
    book = Rulebook()
    low, high = (
        criterion(Settings(strategy=strategy, target_share=0.5), book=book) for strategy in ("rsd-n", "judge")
    )
    shares = [(low(i % 7 / 20), high(0.5 + i % 7 / 20)) for i in range(400)]
    assert [sum(column) / 400 for column in zip(*shares, strict=True)] == pytest.approx([0.5, 0.5], abs=0.05)
    again = criterion(Settings(strategy="rsd-n@4", target_share=0.5), "q", book=book)
    assert again.budget is low.budget


@pytest.mark.parametrize(
    ("strategy", "changes", "expected"),
    [
        ("rsd", {}, True),
        ("rsd", {"threshold": 0.1}, False),
        ("rsd", {"target_share": 0.2}, False),
        ("rsd", {"weighting": "constant:p=0.5"}, False),
        ("rsd-n@2", {}, True),
        ("glimpse", {}, True),
        ("glimpse:target", {}, False),
        ("judge", {}, False),
        ("gsi@2", {}, False),
        ("first-k-by-target", {}, False),
        ("target", {}, False),
    ],
)
def test_a_threshold_of_nothing_rejects_nothing_where_the_target_has_no_other_task(
    strategy, changes, expected
):
    assert rejects_nothing(Settings(strategy, **({"threshold": 0.0} | changes))) is expected
