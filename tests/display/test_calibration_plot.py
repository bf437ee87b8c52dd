"""The picture of a calibration: what it says, read from its SVG."""

import sys
from xml.etree import ElementTree as ET

import pytest

from rsd_cli.display.calibration import Report
from rsd_cli.display.calibration_plot import TITLE, check_matplotlib, save_plot
from rsd_cli.errors import UsageError
from rsd_cli.evaluation.calibration import Costs, Gain, Graded, JudgedStep, Measured, curve

STEPS = [JudgedStep(0.1 * i, 10) for i in range(10)]


def measured(threshold: float, share: int, right: int) -> Measured:
    return Measured(threshold, tuple(Graded(i < right, share, 100) for i in range(10)))


def words(path, runs=(), title="tiny: 9 questions", rewards=(0.2, None, 0.7), earned=(), draft=None) -> str:
    points = tuple(curve(STEPS, Costs(1, 3)))
    save_plot(path, Report(title, rewards, earned, points, runs, 0.375, "a reason", 0, draft))
    return "\n".join(ET.parse(path).getroot().itertext())


def test_without_gold_answers_it_shows_rewards_and_estimates(tmp_path):
    text = words(tmp_path / "p.svg", earned=(0.5,))
    for said in ("threshold 0.375: a reason", "the draft's steps (2)", "the target's in their place (1)"):
        assert said in text
    assert "tokens by the target" in text
    assert "reading included, prompts left out" in text
    assert "answers right" not in text
    assert "9 questions; 2 of 10 answers right (20.0%)" in words(tmp_path / "d.svg", draft=measured(0, 0, 2))
    assert "chord" not in text


def test_graded_runs_are_drawn_beside_the_chord(tmp_path):
    runs = (
        (measured(0, 0, 2), None),
        (measured(0.3125, 50, 5), Gain(0.05, -0.1, 0.2)),
        (measured(1, 100, 6), None),
    )
    text = words(tmp_path / "p.svg", runs)
    assert "the chord" in text
    assert "0.3125" in text


def test_a_long_title_is_broken_into_lines(tmp_path):
    text = words(tmp_path / "p.svg", title="tiny: " + "9 questions " * 20)
    assert max(map(len, text.splitlines())) <= TITLE


@pytest.mark.parametrize("title", ["pay $x^$ or $", "a\\b_{", "<&>"])
def test_a_name_is_no_formula(title, tmp_path):
    assert title in words(tmp_path / "p.svg", title=title)


def test_steps_without_any_reward_leave_an_empty_panel(tmp_path):
    assert "the draft's steps (0)" in words(tmp_path / "p.svg", rewards=(None, None))


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch):
    check_matplotlib()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError) as refusal:
        check_matplotlib()
    assert "rsd-cli[plot]" in refusal.value.hint
