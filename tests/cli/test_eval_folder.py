"""The folder of `rsd eval`: what may join what is in it, and what its strategies depend on."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest
import yaml

from rsd_cli.cli.eval_folder import Folder
from rsd_cli.errors import OutputError
from tests.cli.command import declared, trio
from tests.rewards.test_heads import a_head, layer

SETTINGS: dict[str, Any] = {"models": {}, "prm": None, "data": {}}
COMMON = ("--threads", "1", "-n", "40", "--max-steps", "4", "-p", "4", "-o", "out")
N_EMBD = 64  # of the tiny draft


@pytest.fixture
def rows(rsd):
    """A file of questions in the form of GSM8K."""
    path = rsd.home / "rows.jsonl"
    lines = [{"question": f"What is {i} + {i}?", "answer": f"#### {2 * i}"} for i in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def evaluate(rsd, rows, strategies, *arguments, name="headed"):
    return rsd(
        "eval", "gsm8k", "--data", str(rows), "--strategies", strategies, "--trio", name, *COMMON, *arguments
    )


def declare(rsd, threshold=0.5, **options):
    """A trio whose PRM is a head on the draft."""
    head = a_head(family="draft-head", hidden_size=N_EMBD, layers=(layer(1, N_EMBD),), **options)
    head.save(rsd.home / "h.safetensors")
    prm = {"family": "draft-head", "model": "draft", "head": "h.safetensors", "threshold": 0.5}
    known = yaml.safe_load((rsd.home / "models.yaml").read_text())
    known["prms"]["own"] = prm | {"calibrated_on": "nothing"}
    known["trios"]["headed"] = trio("draft", "target", "own", threshold)
    rsd.write_models(yaml.safe_dump(known, sort_keys=False))


def opened(path, **settings) -> dict[str, Any]:
    """The settings of a folder that is opened with these."""
    with closing(Folder(path, SETTINGS | settings)) as folder:
        return folder.settings


def keep(path, settings, *strategies):
    """A folder in which these have run."""
    path.mkdir()
    known = {"settings": settings, "started": "2026-05-01T10:00:00+0000"}
    told = {f"x {name}": {"strategy": name} for name in strategies}
    (path / "run.json").write_text(json.dumps(known | {"strategies": told}))


def test_a_prm_joins_where_none_was_asked_and_stays(tmp_path):
    keep(tmp_path / "a", SETTINGS, "target", "majority@8")
    assert opened(tmp_path / "a", prm="own (draft-head, head 12)")["prm"] == "own (draft-head, head 12)"
    keep(tmp_path / "b", SETTINGS | {"prm": "own (draft-head, head 12)"}, "target", "rsd")
    assert opened(tmp_path / "b", prm=None)["prm"] == "own (draft-head, head 12)"
    with pytest.raises(OutputError, match=r"prm was .*head 12.*, now .*head 13"):
        opened(tmp_path / "b", prm="own (draft-head, head 13)")
    assert opened(tmp_path / "new")["prm"] is None


def test_what_was_noted_of_a_prm_that_nobody_asked_does_not_count(tmp_path):
    """As folders have it that were begun with the name and family alone."""
    keep(tmp_path / "a", SETTINGS | {"prm": "own (draft-head)"}, "target", "draft")
    assert opened(tmp_path / "a", prm=None)["prm"] is None
    assert opened(tmp_path / "a", prm="own (draft-head, head 12)")["prm"] == "own (draft-head, head 12)"
    keep(tmp_path / "b", SETTINGS | {"prm": "own (judge)"}, "best-of-n@2:target")
    with pytest.raises(OutputError, match="prm was"):
        opened(tmp_path / "b", prm="own (judge, other)")
    keep(tmp_path / "c", SETTINGS | {"prm": "own (judge)"}, "of-tomorrow")
    with pytest.raises(OutputError, match="prm was"):
        opened(tmp_path / "c", prm="own (judge, other)")


@pytest.mark.parametrize("order", [("target", "target,rsd", "draft,target"), ("rsd", "target", "draft,rsd")])
def test_strategies_with_and_without_a_prm_share_a_folder(order, rsd, rows):
    declare(rsd)
    for strategies in order:
        done = evaluate(rsd, rows, strategies)
        assert done.code == 0, done.err
    known = json.loads((rsd.home / "out" / "run.json").read_text())
    assert known["settings"]["prm"].startswith("own (draft-head, head ")


def test_the_trios_threshold_matters_only_where_steps_pass_it(rsd, rows):
    declare(rsd)
    assert evaluate(rsd, rows, "rsd,target,best-of-n@2,rsd/target-share=0.4").code == 0
    declare(rsd, threshold=0.6)
    again = evaluate(rsd, rows, "target,best-of-n@2,rsd/target-share=0.4,draft")
    assert again.code == 0, again.err
    evaluate(rsd, rows, "rsd").refused(5, "rsd with other settings: threshold was 0.5, now 0.6")


def refused_before_a_question(rsd, done, code, *words):
    done.refused(code, *words)
    assert sorted(path.name for path in (rsd.home / "out").iterdir()) == [".lock"]


def test_a_model_that_can_not_be_loaded_is_refused_before_the_first_question(rsd, rows, tiny):
    """The target was trained for fewer tokens than the draft, which answers first; then the context fits both."""
    files = {"draft": tiny(seed=1), "short": tiny(seed=2, n_ctx_train=1024)}
    rsd.write_models(declared(files, {"short": trio("draft", "short")}))
    said = "--ctx 1,500 is more than the 1,024 tokens"
    done = evaluate(rsd, rows, "draft,target", "--ctx", "1500", name="short")
    refused_before_a_question(rsd, done, 2, said, "Use --ctx 1024 or less.")
    again = evaluate(rsd, rows, "draft,target", "--ctx", "1024", name="short")
    assert again.code == 0, again.err


def test_a_head_of_another_file_is_refused_before_the_first_question(rsd, rows):
    declare(rsd, base="judge", base_sha256="ab" * 32)
    done = evaluate(rsd, rows, "draft,rsd")
    refused_before_a_question(rsd, done, 3, "made for judge with the hash", "draft has")


def test_a_comparison_names_the_threshold_and_what_times_depend_on(rsd, rows):
    for threshold, strategies, seats in ((0.5, "rsd,target,draft", "4"), (0.6, "rsd,target,majority@2", "2")):
        declare(rsd, threshold=threshold)
        done = evaluate(rsd, rows, strategies, "--parallel", seats, "-o", f"at-{threshold}")
        assert done.code == 0, done.err
    found = json.loads(rsd("eval", "compare", "at-0.5", "at-0.6", "--json").out)
    told = {each["name"]: (each["first"], each["second"]) for each in found["settings"]}
    assert told == {
        "config.strategies.gsm8k.rsd.threshold": ("0.5", "0.6"),
        "config.n_seats": ("[4]", "[2]"),
        "config.n_streams": ("[4]", "[2]"),
    }
    assert (found["only_first"], found["only_second"]) == (["gsm8k draft"], ["gsm8k majority@2"])


def test_the_results_hold_what_a_strategy_has_of_its_own(rsd, rows):
    declare(rsd)
    assert evaluate(rsd, rows, "rsd/weighting=clip,target", "-p", "4", "--limit", "2").code == 0
    assert evaluate(rsd, rows, "rsd/weighting=clip,target", "-p", "2").code == 0
    newest = max((rsd.home / "out").glob("results_*.json"))
    config = json.loads(newest.read_text())["config"]
    own = config["strategies"]["gsm8k"]
    assert (own["rsd/weighting=clip"]["threshold"], own["rsd/weighting=clip"]["weighting"]) == (0.5, "clip")
    assert own["target"]["threshold"] is None
    assert not {"seed", "max_tokens", "sampling"} & set(own["target"]), "these are the folder's"
    assert (config["seed"], config["n_seats"], config["threads"]) == (0, [2, 4], [1])
