"""`/set`: every key with good and bad values, and settings that survive their JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from rsd_cli.chat.journal import read_settings
from rsd_cli.chat.settings import KEYS, change, method, shown
from rsd_cli.decoding.strategies import STRATEGIES, parse
from rsd_cli.decoding.trajectory import Settings
from rsd_cli.engine.sampling import Sampling
from rsd_cli.errors import UsageError

BASE = Settings(sampling=Sampling(top_k=7))
GOOD: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "threshold": [("0.5", {"threshold": 0.5}), ("0", {"threshold": 0.0}), ("1", {"threshold": 1.0})],
    "strategy": [(name, {"strategy": str(parse(name))}) for name in STRATEGIES],
    "draft": [("off", {"strategy": "target"}), ("on", {"strategy": "rsd"})],
    "speculative": [("on", {"speculative": True}), ("off", {"speculative": False})],
    "temperature": [
        ("0.8", {"sampling": Sampling(temperature=0.8, top_k=7)}),
        ("10", {"sampling": Sampling(temperature=10, top_k=7)}),
    ],
    "top-p": [("0.9", {"sampling": Sampling(top_p=0.9, top_k=7)}), ("1", {"sampling": BASE.sampling})],
    "seed": [("7", {"seed": 7}), ("-7", {"seed": -7}), ("0", {"seed": 0})],
    "max-tokens": [("1", {"max_tokens": 1}), ("4096", {"max_tokens": 4096})],
    "max-steps": [("1", {"max_steps": 1}), ("12", {"max_steps": 12})],
    "system": [
        ("You  are terse.", {"system": "You  are terse."}),
        ("two\nlines", {"system": "two\nlines"}),
        ("''", {"system": ""}),
        ('""', {"system": ""}),
    ],
}
BAD: dict[str, list[str]] = {
    "threshold": ["1.1", "-0.1", "nan", "inf", "high", "0,5", "0.5 0.6"],
    "strategy": ["RSD2", "rsd target", "majority-of-none"],
    "draft": ["yes", "1", "onoff"],
    "speculative": ["true", "0", "on off"],
    "temperature": ["-1", "11", "nan", "warm"],
    "top-p": ["2", "-0.5", "nan", "p"],
    "seed": ["1.5", "one", "9" * 5000],
    "max-tokens": ["0", "-1", "1e3", "many", "9" * 5000],
    "max-steps": ["0", "2.5", "few"],
    "system": [],
}
COMMANDS = [(key, text, changes) for key, cases in GOOD.items() for text, changes in cases]


def test_every_key_is_tried():
    assert GOOD.keys() == BAD.keys() == KEYS.keys()


@pytest.mark.parametrize(("key", "text", "changes"), COMMANDS)
def test_a_good_value_changes_its_setting_alone(key, text, changes):
    changed = change(BASE, f"{key} {text}")
    assert changed == replace(BASE, **changes)
    assert change(BASE, f" {key.upper().replace('-', '_')}  {text} ") == changed
    assert change(BASE, f"{key}\t{text}") == changed


@pytest.mark.parametrize(("key", "text", "changes"), COMMANDS)
def test_what_is_shown_of_a_setting_sets_it(key, text, changes):
    changed = replace(BASE, **changes)
    if key != "draft":  # it shows two strategies of several
        assert change(BASE, f"{key} {KEYS[key].shown(changed)}") == changed


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, texts in BAD.items() for text in texts])
def test_a_bad_value_is_refused_with_what_is_wanted(key, text):
    with pytest.raises(UsageError, match=f"^/set {key} takes ") as refused:
        change(BASE, f"{key} {text}")
    assert repr(text) in refused.value.message


@pytest.mark.parametrize("strategy", ["target", "draft", "best-of-n@2:target"])
def test_speculation_needs_two_who_write(strategy):
    alone = replace(BASE, strategy=strategy)
    with pytest.raises(UsageError, match=r"^/set speculative on needs a draft and a target") as refused:
        change(alone, "speculative on")
    assert f"--strategy {strategy} has" in refused.value.message
    assert change(alone, "speculative off") == alone


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_value_is_asked_for(key):
    with pytest.raises(UsageError, match=f"^/set {key} needs a value") as refused:
        change(BASE, key)
    assert refused.value.hint.lower() == f"{KEYS[key].help}.".lower()


def test_an_unknown_key_is_told_what_was_meant_or_what_there_is():
    with pytest.raises(UsageError, match="'treshold' is unknown") as near:
        change(BASE, "treshold 0.5")
    assert near.value.hint == "Did you mean threshold?"
    with pytest.raises(UsageError, match="'colour' is unknown") as far:
        change(BASE, "colour red")
    assert all(key in far.value.hint for key in KEYS)


@pytest.mark.parametrize(("key", "shown"), [("temperature", "0"), ("top-p", "1"), ("system", "''")])
def test_settings_without_sampling_are_shown_and_changed(key, shown):
    assert KEYS[key].shown(Settings()) == shown
    assert change(Settings(), "temperature 0.5").sampling == Sampling(temperature=0.5)


def test_a_threshold_takes_the_place_of_a_budget():
    budget = replace(BASE, target_share=0.2, share_per="problem")
    assert change(budget, "threshold 0.9") == replace(BASE, threshold=0.9)
    assert change(budget, "seed 3").target_share == 0.2


def test_what_decides_about_steps_is_told():
    assert dict(shown(BASE)) == {name: key.shown(BASE) for name, key in KEYS.items()}
    assert method(BASE) == "rsd at 0.7"
    budget = replace(BASE, target_share=0.2, beta=5.0, aggregate="min")
    told = dict(shown(budget))
    assert (told["target-share"], told["beta"], told["aggregate"]) == ("0.2 of a run's steps", "5", "min")
    assert "threshold" not in told, "it is of no effect"
    assert "0.2" in method(budget)
    assert "0.7" not in method(budget)
    assert dict(shown(replace(BASE, weighting="clip")))["weighting"] == "clip"


@pytest.mark.parametrize("key", KEYS)
def test_values_that_are_offered_are_taken(key):
    for value in KEYS[key].values:
        assert KEYS[key].shown(change(BASE, f"{key} {value}")) == value


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        BASE,
        Settings(
            "beam@4:target",
            0.25,
            weighting="constant:p=0.5",
            target_share=0.2,
            share_per="problem",
            beta=2.0,
            aggregate="min",
            max_tokens=100,
            max_steps=3,
            system="--> \u2028 \U0001f600\n\"'",
            seed=-(10**30),
            separator="\n",
            max_seconds=1.5,
            speculative=True,
        ),
        Settings(sampling=Sampling(0.7, 0, 0.9, 0.05, 1.1)),
        *(replace(BASE, **changes) for _, _, changes in COMMANDS),
    ],
)
def test_settings_survive_their_json(settings):
    assert read_settings(json.loads(json.dumps(asdict(settings)))) == settings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threshold": "high"}, "settings.threshold is 'high'"),
        ({"threshold": float("nan")}, "settings.threshold is nan"),
        ({"strategy": "luck"}, "settings.strategy is 'luck'"),
        ({"strategy": None}, "settings.strategy is None"),
        ({"max_tokens": 1.5}, "settings.max_tokens is 1.5"),
        ({"system": None}, "settings.system is None"),
        ({"sampling": [1]}, "settings.sampling is [1]"),
        ({"sampling": {"temperature": "warm"}}, "settings.sampling.temperature is 'warm'"),
        ({"colour": "red"}, "settings has an unknown key 'colour'"),
    ],
)
def test_wrong_settings_are_refused_with_their_place(wrong, message):
    with pytest.raises(ValueError) as refused:
        read_settings(asdict(BASE) | wrong)
    assert message in str(refused.value)
