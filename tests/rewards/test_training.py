"""Features, fits and figures: on data whose answers are known."""

import numpy as np
import pytest

from rsd_cli.rewards.families import Solution
from rsd_cli.rewards.features import FEATURES, false_equations
from rsd_cli.rewards.quality import auc, calibration_error, reliability
from rsd_cli.rewards.rollouts import Rollout, SeenStep
from rsd_cli.rewards.starter import MEAN, VARIANTS, is_held_out, train_head, variants
from rsd_cli.rewards.training import Examples, choose, fold_of, part_of, sigmoid


@pytest.mark.parametrize(
    ("text", "false", "all_"),
    [
        ("3 * 4 = 13", 1, 1), ("So $3 \\times 4 = 12$.", 0, 1), ("\\[ 48 \\div 2 = 24 \\text{ clips} \\]", 0, 1),
        ("30+46+38+11+18 = 142", 1, 1), ("16 - 142 = -126", 0, 1), ("2+3*4=14", 0, 1), ("10/3=3.33", 0, 1),
        ("5 - -3 = 8", 0, 1), ("\\frac{1}{2} * 10 = 5", 0, 1), ("20% of 50 = 10", 0, 0), ("1,000 + 2 = 1,002", 0, 1),
        ("3 + 4 = 7 apples, then 7 * 2 = 15.", 1, 2), ("5 * \\$3 = \\$15", 0, 1), ("1 / 0 = 0", 0, 0), ("", 0, 0),
        ("x = y + 2", 0, 0), ("=" * 5000, 0, 0),
    ],
)  # fmt: skip
def test_equations_are_checked(text, false, all_):
    assert false_equations(text) == (false, all_)


def test_every_feature_is_a_finite_number_of_any_text():
    for text in ("", "\n\n", "1 + 1 = 3", "\\boxed{2.5}", "=" * 100, "9" * 3000, "\\frac{1}{0} = 1"):
        solution = Solution("What is 1 + 2?", ("First.\n\n", text))
        values = [feature(solution) for feature in FEATURES.values()]
        assert np.isfinite(values).all()


def test_auc_is_the_share_of_ordered_pairs():
    assert auc([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]) == 1
    assert auc([0.9, 0.1], [0, 1]) == 0
    assert auc([0.5, 0.5, 0.5], [0, 1, 1]) == 0.5
    assert np.isnan(auc([0.1], [1]))
    random = np.random.default_rng(0)
    rewards, good = random.integers(0, 5, 60) / 5, random.integers(0, 2, 60).astype(bool)
    pairs = [(a > b) + 0.5 * (a == b) for a in rewards[good] for b in rewards[~good]]
    assert auc(rewards, good) == pytest.approx(np.mean(pairs))


def test_rewards_that_are_probabilities_have_no_calibration_error():
    rewards = np.repeat([0.2, 0.8], 50)
    good = [i % 5 == 0 for i in range(50)] + [i % 5 != 0 for i in range(50)]
    assert calibration_error(rewards, good, 2) == pytest.approx(0)
    assert calibration_error(1 - rewards, good, 2) == pytest.approx(0.6)
    assert [part.n for part in reliability(rewards, good)] == [10] * 10


def some_examples(n=400, informative=True):
    random = np.random.default_rng(1)
    inputs = random.normal(size=(n, 12))
    logits = inputs[:, 0] * 2 - inputs[:, 11] if informative else np.zeros(n)
    good = (random.random(n) < sigmoid(logits)).astype(float)
    fold = np.array([fold_of(str(i // 4)) for i in range(n)])
    return Examples(inputs, good, np.ones(n), fold, 8)


def test_a_fit_finds_what_is_there_and_is_calibrated():
    rows = some_examples()
    chosen = choose(rows)
    assert chosen.auc > 0.8
    fit = chosen.calibrated(np.ones(len(rows.good), bool), rows.good)
    assert auc(fit.rewards(rows.inputs), rows.good) > 0.8
    assert calibration_error(fit.rewards(rows.inputs), rows.good) < 0.1
    again = choose(rows)
    np.testing.assert_array_equal(again.fit.logits(rows.inputs), chosen.fit.logits(rows.inputs))


def test_noise_is_not_mistaken_for_a_signal():
    assert choose(some_examples(informative=False)).auc < 0.62


def test_problems_fall_into_the_same_parts_everywhere():
    assert [part_of(name) for name in ("0", "1", "gsm8k/7")] == [9, 83, 71]
    assert len({fold_of(str(i)) for i in range(100)}) == 5


@pytest.mark.parametrize("reaches", [(True, False), (False, False)])
def test_labels_that_are_all_alike_calibrate_nothing(reaches):
    random = np.random.default_rng(0)
    rollouts = []
    for i in range(60):
        state = random.normal(size=4).astype(np.float16)
        steps = (SeenStep("We add.", (1,), -0.5, -1.0, 0.5, state, state, reaches=reaches[i % 2]),)
        rollouts.append(Rollout(str(i), 0, "What is 1 + 2?", steps, right=state[0] > 0))
    below = [rollout for rollout in rollouts if not is_held_out(rollout.id)]
    trained = train_head(rollouts, labelled := below[:8], ("hidden",))
    assert trained.n_calibration == (len(labelled) if any(reaches) else len(below))
    assert np.ptp(trained.fit.rewards(np.eye(4))) > 0.01


@pytest.mark.parametrize("told", [True, False])
def test_only_states_that_a_model_tells_are_compared(told):
    state = np.ones(4, np.float16)
    steps = tuple(SeenStep("So", (1,), -1.0, -1.0, 0.5, state, mean) for mean in (state, state * (1 + told)))
    compared = variants([Rollout("0", 0, "What?", steps, right=True)])
    assert compared == {name: inputs for name, inputs in VARIANTS.items() if told or MEAN not in inputs}
