"""From what models.yaml says of a reward model to the files that it needs."""

from __future__ import annotations

import hashlib

import pytest
import yaml

from rsd_cli.cli.setup import Access, Choice, find, find_prm
from rsd_cli.errors import ModelError, UsageError
from rsd_cli.registry.entries import LAYOUTS
from rsd_cli.rewards import marker, value_head
from rsd_cli.rewards.spec import PrmSpec

HEADED = {"family": "value-head", "layout": "trl", "model": "tiny"}


@pytest.fixture
def declare(tiny, tmp_path, monkeypatch):
    """declare(**prm): a models.yaml with that reward model over a file beside it."""
    monkeypatch.setenv("RSD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    gguf = tmp_path / "models" / "tiny.gguf"
    gguf.parent.mkdir()
    gguf.write_bytes(tiny().read_bytes())
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    model = {"size": gguf.stat().st_size, "sha256": digest, "sources": [{"kind": "path", "path": str(gguf)}]}

    def write(**prm):
        trio = {"draft": "tiny", "target": "tiny", "prm": "own", "threshold": 0.5, "use_for": "tests"}
        prm = {"threshold": 0.5, "calibrated_on": "nothing"} | prm
        path = tmp_path / "configuration" / "models.yaml"
        path.parent.mkdir(exist_ok=True)
        declared = {"models": {"tiny": model}, "prms": {"own": prm}, "trios": {"mine": trio}}
        path.write_text(yaml.safe_dump(declared))
        return Access(path, offline=True)

    return write


def test_a_head_is_looked_for_where_its_declaration_stands(declare, tmp_path):
    for place in ("head.safetensors", "heads/head.safetensors"):
        access = declare(**HEADED, head=place)
        path = tmp_path / "configuration" / place
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        assert find_prm("own", access).prm.head == path


def test_a_heads_absolute_path_is_taken_as_it_is(declare, tmp_path):
    path = tmp_path / "elsewhere.safetensors"
    path.write_bytes(b"")
    assert find_prm("own", declare(**HEADED, head=str(path))).prm.head == path


def test_a_head_that_nobody_named_lies_beside_the_model(declare, tmp_path):
    access = declare(**HEADED)
    beside = tmp_path / "models" / "tiny.head.safetensors"
    with pytest.raises(ModelError, match=r"tiny\.head\.safetensors is not there"):
        find_prm("own", access)
    beside.write_bytes(b"")
    assert find_prm("own", access).prm.head == beside
    assert find(Choice("mine"), access, ("draft", "prm")).trio.prm.head == beside


def test_a_head_that_is_gone_is_refused_with_its_place(declare, tmp_path):
    access = declare(**HEADED, head="heads/gone.safetensors")
    with pytest.raises(ModelError, match=str(tmp_path / "configuration" / "heads" / "gone")):
        find_prm("own", access)


def test_layout_and_separator_travel_with_the_trio_also_from_memory(declare, tmp_path):
    head = tmp_path / "head.safetensors"
    head.write_bytes(b"")
    access = declare(**HEADED, head=str(head), separator="\n")
    first = find(Choice("mine"), access, ("draft", "prm")).trio.prm
    assert (first.family, first.layout, first.separator, first.head) == ("value-head", "trl", "\n", head)
    assert find(Choice("mine"), access, ("draft", "prm")).trio.prm == first


@pytest.mark.parametrize(
    ("prm", "word"),
    [
        ({"family": "value-head", "model": "tiny"}, "skywork"),
        ({"family": "value-head", "model": "tiny", "layout": "rlhflow"}, "rlhflow"),
        ({"family": "marker", "model": "tiny", "layout": "skywork"}, "math-shepherd"),
        ({"family": "judge", "model": "tiny", "layout": "trl"}, "layout"),
        ({"family": "marker", "layout": "rlhflow"}, "needs a model"),
        ({"family": "confidence", "model": "tiny"}, "takes no model"),
        ({"family": "draft-head", "model": "tiny"}, "needs a head"),
        ({"family": "judge", "model": "tiny", "head": "h.safetensors"}, "takes no head"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(prm, word, declare):
    with pytest.raises(UsageError, match=word):
        find_prm("own", declare(**prm))


def test_every_declared_layout_is_one_that_a_family_has():
    assert set(LAYOUTS["value-head"]) == set(value_head.LAYOUTS)
    assert set(LAYOUTS["marker"]) | {"genprm-direct"} == set(marker.LAYOUTS)


def test_a_reward_models_identity_is_all_that_its_rewards_depend_on(tmp_path):
    head = tmp_path / "head.safetensors"
    head.write_bytes(b"weights")
    specs = [
        PrmSpec("own", "value-head", layout, head, separator)
        for layout, separator in (
            ("trl", "\n"),
            ("trl", "\n\n"),
            ("skywork", "\n"),
            ("trl", ""),
            ("skywork", ""),
        )
    ]
    assert len({spec.identity for spec in specs}) == len(specs)
    assert PrmSpec("own", "judge").identity == "own (judge)"  # as it stands in files of earlier versions
    digest = hashlib.sha256(b"weights").hexdigest()[:16]
    assert PrmSpec("own", "draft-head", head=head).identity == f"own (draft-head, head {digest})"
