"""What a conversation keeps of models and method when it goes on, and what the command line changes of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rsd_cli.chat.journal import Parts, opening, replay
from rsd_cli.cli.method import Wishes, going_on, method_of
from rsd_cli.cli.opening import Given
from rsd_cli.cli.setup import Choice
from rsd_cli.cli.warm import FoundTrio
from rsd_cli.decoding.trajectory import Settings
from rsd_cli.engine.sampling import Sampling
from rsd_cli.errors import UsageError
from rsd_cli.registry.loading import load_registry
from rsd_cli.rewards.spec import PrmSpec
from tests.chat.talks import a_talk
from tests.cli.test_ask import record

SHORT = ("-n", "24", "--max-steps", "2")
TRIOS = 0.375


def settings(strategy: str, threshold: float = 0.5, **others: Any) -> Settings:
    return Settings(strategy, threshold, sampling=Sampling(temperature=0.7), **others)


BETTER = settings("keep-better", 0.9, weighting="logistic:alpha=10")
SHARED = settings("rsd", target_share=0.2, share_per="problem")


@pytest.mark.parametrize(
    ("kept", "given", "changed"),
    [
        (BETTER, Wishes(speculative=True), {"speculative": True}),
        (BETTER, Wishes(threshold=0.2), {"threshold": 0.2}),
        (BETTER, Wishes(weighting="clip"), {"weighting": "clip"}),
        (BETTER, Wishes("keep-better", threshold=0.2), {"threshold": 0.2}),
        (BETTER, Wishes(target_share=0.3), {"target_share": 0.3, "threshold": TRIOS, "weighting": "binary"}),
        (SHARED, Wishes(target_share=0.3), {"target_share": 0.3, "threshold": TRIOS}),
        (SHARED, Wishes(share_per="run"), {"share_per": "run", "threshold": TRIOS}),
        (SHARED, Wishes(threshold=0.2), {"threshold": 0.2, "target_share": None, "share_per": "run"}),
        (SHARED, Wishes(weighting="clip"), {"weighting": "clip", "target_share": None, "share_per": "run"}),
        (settings("rsd", speculative=True), Wishes(speculative=False), {"speculative": False}),
        (settings("rsd-n@4", beta=3), Wishes("rsd-n", threshold=0.2), {"threshold": 0.2}),
        (settings("best-of-n@2", aggregate="min"), Wishes(threshold=0.2), {"threshold": 0.2}),
        (settings("rsd", beta=3), Wishes(threshold=0.2), {"threshold": 0.2, "beta": None}),
    ],
)
def test_what_is_not_given_stays_as_it_was(kept, given, changed):
    assert method_of(going_on(given, kept)).settle(kept, TRIOS) == replace(kept, **changed)


def test_another_strategy_begins_anew():
    anew = method_of(going_on(Wishes("rsd", speculative=True), BETTER)).settle(BETTER, TRIOS)
    assert anew == settings("rsd", TRIOS, speculative=True)


@pytest.mark.parametrize(
    "given", [Wishes(target_share=0.2, threshold=0.5), Wishes(beta=3), Wishes(aggregate="min")]
)
def test_what_is_given_and_means_nothing_is_still_refused(given):
    with pytest.raises(UsageError):
        method_of(going_on(given, SHARED))


def test_what_nothing_was_given_for_is_not_checked_anew():
    odd = Settings("majority@8", beta=3)  # /set can make it
    assert Given().method(odd).strategy.name == "majority"


def test_another_trio_takes_the_place_of_all_models():
    kept = a_talk(trio="starter", parts=Parts(draft="a", prm="confidence"))
    assert Given().choice(kept) == Choice("starter", "a", None, "confidence")
    assert Given(draft="b", target="c").choice(kept) == Choice("starter", "b", "c", "confidence")
    assert Given(trio="tiny", target="c").choice(kept) == Choice("tiny", None, "c")
    assert Given(draft="b").choice(None) == Choice("starter", "b")


SCORED = FoundTrio({}, PrmSpec("other", "judge"), 0.7, {})


@pytest.mark.parametrize(
    ("given", "threshold"),
    [
        (Given(), 0.9),
        (Given(draft="b"), 0.9),
        (Given(trio="starter", prm="confidence"), 0.9),
        (Given(trio="starter"), 0.7),
        (Given(prm="judge"), 0.7),
        (Given(trio="tiny"), 0.7),
        (Given(trio="tiny", wishes=Wishes(threshold=0.2)), 0.2),
        (Given(trio="tiny", wishes=Wishes(speculative=True)), 0.7),
    ],
)
def test_another_prm_brings_its_own_threshold(given, threshold):
    kept = a_talk(trio="starter", parts=Parts(prm="confidence"), settings=BETTER)
    made = given.settings(given.method(kept.settings), SCORED, kept)
    assert (made.threshold, made.weighting) == (threshold, BETTER.weighting)


def test_a_threshold_on_a_strategys_own_scale_stays_with_another_prm():
    kept, given = a_talk(trio="starter", settings=settings("gsi", 0.4)), Given(prm="judge")
    assert given.settings(given.method(kept.settings), SCORED, kept).threshold == 0.4


def test_names_last_and_paths_become_absolute(tmp_path, monkeypatch):
    (tmp_path / "smollm2-135m").touch()
    monkeypatch.chdir(tmp_path)
    registry = load_registry()
    for name in ("smollm2-135m", "confidence", "hf://a/b:q8_0", "a/b:Q8_0", "/x/m.gguf"):
        assert registry.lasting(name) == name
    assert registry.lasting("m.gguf") == str(tmp_path / "m.gguf")
    assert registry.lasting("~/m.gguf") == str(Path.home() / "m.gguf")


def test_a_journal_of_an_earlier_version_names_no_models():
    line = opening(a_talk())
    del line["parts"]
    assert replay([json.dumps(line)], "talk").parts == Parts()


@pytest.mark.parametrize("parts", ['{"drift": "a"}', '{"draft": 3}', "[]", "null"])
def test_models_that_are_none_are_named(parts):
    line = json.dumps(opening(a_talk()) | {"parts": json.loads(parts)})
    with pytest.raises(UsageError, match=r"^Line 1"):
        replay([line], "talk")
    with pytest.raises(UsageError, match=r"^Line 2"):
        replay(
            [json.dumps(opening(a_talk())), f'{{"kind": "models", "trio": "t", "parts": {parts}}}'], "talk"
        )


def journal(rsd) -> list[dict[str, Any]]:
    (path,) = (rsd.home / "rsd_home" / "chats").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def models(made: dict[str, Any]) -> dict[str, str]:
    return {role: model["name"] for role, model in made["models"].items()}


def test_a_conversation_goes_on_with_its_models_and_its_method(rsd, tiny):
    shutil.copy(tiny(seed=7), rsd.home / "mine.gguf")
    method = ("--strategy", "keep-better", "--threshold", "0.9", "--weighting", "constant:p=0")
    begun = rsd(
        "ask", "What?", "--trio", "alike", "--draft", "mine.gguf", "--prm", "opinion", *method, *SHORT
    )
    assert begun.code == 0, begun.err
    made = record(rsd("ask", "-c", "And?", "--speculative", "--json"))
    assert made["strategy"] == "keep-better"
    kept = {name: made["settings"][name] for name in ("threshold", "weighting", "speculative", "trio", "prm")}
    assert kept == {
        "threshold": 0.9, "weighting": "constant:p=0", "speculative": True, "trio": "alike", "prm": "opinion",
    }  # fmt: skip
    assert models(made) == {"draft": "mine", "target": "draft", "prm": "judge"}
    first, *others = journal(rsd)
    assert first["parts"] == {"draft": str(rsd.home / "mine.gguf"), "target": None, "prm": "opinion"}
    assert "models" not in [line["kind"] for line in others]
    made = record(rsd("ask", "-c", "And?", "--trio", "judged", "--no-speculative", "--json"))
    assert models(made) == {"draft": "draft", "target": "target", "prm": "judge"}
    (changed,) = (line for line in journal(rsd) if line["kind"] == "models")
    assert (changed["trio"], set(changed["parts"].values())) == ("judged", {None})
    assert record(rsd("ask", "-c", "And?", "--json"))["settings"]["trio"] == "judged"
