"""A threshold and what it comes from are written into the models.yaml that declares the trio, and nothing else."""

import stat

import pytest
import yaml

from rsd_cli.errors import UsageError
from rsd_cli.registry.editing import check_savable, set_threshold
from rsd_cli.registry.files import packed_file
from rsd_cli.registry.loading import load_registry
from tests.registry.test_loading import GOOD, TRIO


@pytest.fixture
def users_file(tmp_path):
    path = tmp_path / "config" / "rsd" / "models.yaml"
    path.parent.mkdir(parents=True)
    return path


FROM = "q.jsonl, 50 questions, 2026-11-26"


def save(name, threshold=0.625, models_file=None, calibrated_on=FROM):
    return set_threshold(load_registry(models_file).trio(name), threshold, calibrated_on, models_file)


@pytest.mark.parametrize("place", ["asked", "environment", "working directory", "user"])
def test_the_file_that_declares_the_trio_is_written_and_no_other(place, tmp_path, monkeypatch, users_file):
    path = {"working directory": tmp_path / "work" / "models.yaml", "user": users_file}.get(
        place, tmp_path / "own.yaml"
    )
    path.write_text("# mine\r\n" + GOOD + TRIO)
    if place == "environment":
        monkeypatch.setenv("RSD_MODELS", str(path))
    asked = path if place == "asked" else None
    assert save("t", models_file=asked) == path
    assert path.read_bytes().decode() == "# mine\r\n" + GOOD + TRIO.replace(
        "0.5", f'0.625, calibrated_on: "{FROM}"'
    )
    assert load_registry(asked).trio("t").threshold == 0.625
    assert load_registry(asked).trio("t").calibrated_on == FROM
    assert users_file.exists() == (place == "user")
    assert [entry.name for entry in path.parent.iterdir() if "new" in entry.name] == []


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_the_file_keeps_its_mode(mode, users_file):
    users_file.write_text(GOOD + TRIO)
    users_file.chmod(mode)
    save("t")
    assert load_registry().trio("t").threshold == 0.625
    assert stat.S_IMODE(users_file.stat().st_mode) == mode


@pytest.mark.parametrize("threshold", [0.0, 1.0, 0.0004, 1.23456e-7, 0.9999996, 0.999999998765])
def test_a_threshold_near_an_end_stays_there(threshold, users_file):
    users_file.write_text(GOOD + TRIO)
    save("t", threshold)
    assert load_registry().trio("t").threshold == threshold
    save("starter", threshold)  # one that is copied with it
    assert load_registry().trio("starter").threshold == threshold


BLOCK = """trios:
  t:
    draft: foo
    target: foo   # mine
    threshold: 0.5  # by a guess
    prm: confidence
    use_for: x
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("threshold: 0.5  # by a guess", f'threshold: 0.625  # by a guess\n    calibrated_on: "{FROM}"'),
        ("threshold: '0.5'", f'threshold: 0.625\n    calibrated_on: "{FROM}"'),
        (
            "calibrated_on: nothing # yet\n    threshold: 0.5",
            f'calibrated_on: "{FROM}" # yet\n    threshold: 0.625',
        ),
        (
            "threshold: 0.5\n    calibrated_on: 'a,\n      b'\n    # so",
            f'threshold: 0.625\n    calibrated_on: "{FROM}"\n    # so',
        ),
        (
            "threshold: 0.5\n    calibrated_on: >\n      a\n      b",
            f'threshold: 0.625\n    calibrated_on: "{FROM}"',
        ),
    ],
)
def test_what_a_threshold_comes_from_stands_in_one_line_beside_it(before, after, newline, users_file):
    declared = GOOD + BLOCK.replace("threshold: 0.5  # by a guess", before)
    users_file.write_bytes(declared.replace("\n", newline).encode())
    save("t")
    wanted = GOOD + BLOCK.replace("threshold: 0.5  # by a guess", after)
    assert users_file.read_bytes().decode() == wanted.replace("\n", newline)
    save("t")
    assert users_file.read_bytes().decode() == wanted.replace("\n", newline)


def test_a_trio_at_the_end_of_a_file_and_an_odd_name(users_file):
    users_file.write_text(
        (GOOD + BLOCK).replace("    threshold: 0.5  # by a guess\n", "").rstrip() + "\n    threshold: 0.5"
    )
    odd = 'a "b": \\c {d}, #1\té😀.jsonl, 1 question'
    save("t", calibrated_on=odd)
    assert load_registry().trio("t").calibrated_on == odd


def test_a_trio_keeps_how_it_samples(users_file):
    own = TRIO.replace("use_for", "sampling: {temperature: 0.7}, use_for")
    users_file.write_text(GOOD + own)
    save("t")
    assert load_registry().trio("t").sampling.temperature == 0.7


def test_over_a_packed_trio_the_users_file_gets_one_that_wins(users_file, monkeypatch):
    before = packed_file().read_bytes()
    monkeypatch.chdir(packed_file().parent)
    assert save("starter") == users_file
    assert load_registry().trio("starter").threshold == 0.625
    assert set(yaml.safe_load(users_file.read_text())) == {"trios"}
    assert save("starter", 0.25) == users_file
    assert load_registry().trio("starter").threshold == 0.25
    assert packed_file().read_bytes() == before


def test_the_packed_file_is_not_changed_even_if_it_is_named():
    before = packed_file().read_bytes()
    with pytest.raises(UsageError, match="comes with the program"):
        save("starter", models_file=packed_file())
    assert packed_file().read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "# first\ntrios:\n    # below\n    other:\n        " + "\n        ".join(
            ["draft: foo", "target: foo", "prm: confidence", "threshold: 0.5", "use_for: x"]
        ) + "\n" + GOOD,
        TRIO + GOOD,
        "'trios':\n t: {draft: foo, target: foo, prm: confidence, threshold: 0.5, use_for: x}\n" + GOOD,
        "trios:\n" + GOOD,
        GOOD,
        "",
    ],
)  # fmt: skip
def test_a_trio_stands_beside_those_that_are_there(text, users_file):
    if text:
        users_file.write_text(text)
    before = yaml.safe_load(text) or {}
    save("starter")
    after = yaml.safe_load(users_file.read_text())
    starter = load_registry().trio("starter")
    assert after["trios"].pop("starter") == {
        "draft": starter.draft, "target": starter.target, "prm": starter.prm,
        "threshold": 0.625, "use_for": starter.use_for, "calibrated_on": FROM,
    }  # fmt: skip
    assert after["trios"] == (before.get("trios") or {})
    assert after.get("models") == before.get("models")
    assert all(line in users_file.read_text().splitlines() for line in text.splitlines())


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        (GOOD + "trios: {}\n", "starter", "starter: {draft: qwen2.5-coder-0.5b,"),
        (GOOD + TRIO.replace("t: ", "{t: ", 1).replace("x}", "x}}"), "starter", "threshold: 0.625"),
        ("{models: {}, trios: {}}", "starter", "threshold: 0.625"),
    ],
)
def test_what_can_not_be_edited_is_left_alone_and_the_line_is_said(text, name, line, users_file):
    users_file.write_text(text)
    with pytest.raises(UsageError, match="in place") as caught:
        save(name)
    assert line in caught.value.hint
    assert users_file.read_text() == text
    with pytest.raises(UsageError) as early:
        check_savable(load_registry().trio(name))
    assert early.value.hint.startswith("Leave out --save")


def test_a_link_stays_one(tmp_path, users_file):
    (tmp_path / "dotfiles.yaml").write_text(GOOD + TRIO)
    users_file.symlink_to(tmp_path / "dotfiles.yaml")
    save("t")
    assert users_file.is_symlink()
    assert "0.625" in (tmp_path / "dotfiles.yaml").read_text()
