"""Side-cars: what is written is read again, and nothing else is taken for a head."""

import json
import pickle
import re
import struct
from typing import Any

import numpy as np
import pytest

from rsd_cli.errors import ModelError, ResourceError, UsageError
from rsd_cli.rewards.heads import Head, Layer, LocalFile, load_head
from rsd_cli.rewards.tensors import open_tensors, packed


def layer(out, width, value=0.1):
    return Layer(np.full((out, width), value, np.float32), np.zeros(out, np.float32))


def a_head(**options):
    settings: dict[str, Any] = {
        "family": "value-head",
        "activation": "sigmoid",
        "hidden_size": 4,
        "layers": (layer(1, 4),),
    }
    return Head(**settings | options)


@pytest.fixture
def saved(tmp_path):
    def save(head):
        path = tmp_path / "head.safetensors"
        head.save(path)
        return path

    return save


@pytest.mark.parametrize(
    "head",
    [
        a_head(),
        a_head(layers=(layer(4, 4), layer(2, 4)), activation="softmax", classes=(1,), separator="\n\n"),
        a_head(layers=(layer(3, 4),), activation="softmax", classes=(1, 2), base="qwen", base_sha256="ab"),
        a_head(n_vocab=32000),
        a_head(
            family="draft-head",
            layers=(layer(1, 6),),
            inputs=("hidden", "position", "length"),
            shift=np.ones(6, np.float32),
            scale=np.full(6, 2, np.float32),
            calibration=(1.5, -0.25),
            facts={"steps": "10"},
        ),
    ],
)
def test_a_head_is_read_as_it_was_written(head, saved):
    path = saved(head)
    again = load_head(path)
    width = head.layers[0].weight.shape[1]
    for inputs in (np.zeros(width, np.float32), np.arange(width, dtype=np.float32)):
        assert again.reward(inputs) == pytest.approx(head.reward(inputs))
    assert (again.classes, again.inputs, again.separator, again.facts, again.n_vocab) == (
        head.classes, head.inputs, head.separator, head.facts, head.n_vocab,
    )  # fmt: skip
    assert path.read_bytes() == saved(again).read_bytes()


def test_rewards_are_what_the_formulas_say():
    inputs = np.array([1, 2, 3, 4], np.float32)
    assert a_head().reward(inputs) == pytest.approx(1 / (1 + np.exp(-1.0)))
    calibrated = a_head(calibration=(2.0, -1.0))
    assert calibrated.reward(inputs) == pytest.approx(1 / (1 + np.exp(-1.0)))
    weights = np.array([[0.1] * 4, [-0.1] * 4], np.float32)
    mlp = a_head(
        layers=(Layer(weights, np.zeros(2, np.float32)), layer(2, 2, 0.5)), activation="softmax", classes=(1,)
    )
    assert mlp.reward(inputs) == pytest.approx(0.5)
    three = a_head(
        layers=(Layer(np.zeros((3, 4), np.float32), np.array([0, 1, 2], np.float32)),),
        activation="softmax",
        classes=(1, 2),
    )
    powers = np.exp([0, 1, 2])
    assert three.reward(inputs) == pytest.approx(powers[1:].sum() / powers.sum())


def test_extreme_states_give_rewards_all_the_same():
    for value in (1e30, -1e30):
        assert a_head().reward(np.full(4, value, np.float32)) in (0.0, 1.0)


def test_a_head_for_other_weights_is_refused():
    head = a_head(base="qwen", base_sha256="a" * 64)
    head.check_fits(4, 100, "other.gguf")
    head.check_file("a" * 64, "other.gguf")
    a_head().check_file("b" * 64, "other.gguf")
    with pytest.raises(ModelError, match=r"aaaa.*bbbb"):
        head.check_file("b" * 64, "other.gguf")
    with pytest.raises(ModelError, match=r"4 values.* 8"):
        head.check_fits(8, 100, "other.gguf")
    with pytest.raises(ModelError, match=r"151,936 tokens.* 32,000"):
        a_head(n_vocab=151936).check_fits(4, 32000, "other.gguf")


class Poison:
    def __reduce__(self):
        return (open, ("was-executed", "w"))


def file_of(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "0 bytes"),
        (b"\x80\x04K\x01.", "5 bytes"),
        (pickle.dumps(Poison()) + b"\0" * 20, "pickle"),
        (b"PK\x03\x04" + b"\0" * 60, "archive"),
        (b"\x93NUMPY\x01\x00" + b"\0" * 120, "archive"),
        (file_of({}, length=1 << 62), "claims"),
        (file_of(b"[]"), "no JSON object"),
        (file_of(b"{nonsense"), "no JSON"),
        (file_of(b'{"a": 1, "a": 2}'), "twice"),
        (file_of(b"[" * 100_000), "no JSON"),
        (file_of({"a": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 4]}}, b"\0" * 4), "shape"),
        (
            file_of({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4),
            "no valid shape",
        ),
        (file_of({"a": F32 | {"dtype": ["F32"]}}, b"\0" * 4), "type ['F32']"),
        (file_of({"a": {"dtype": "U4", "shape": [1], "data_offsets": [8, 0]}}, b"\0" * 8), "shape"),
        (file_of({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8), "no head"),
        (file_of({"a": F32 | {"more": 1}}, b"\0" * 4), "not described"),
        (file_of({"a": F32, "b": F32}, b"\0" * 4), "begins at byte"),
        (file_of({"a": F32}, b"\0" * 9), "the file has"),
        (file_of({"a": F32}, b"\0" * 2), "the file has"),
        (file_of({"__metadata__": {"a": 1}}), "not text"),
        (file_of({"a": F32}, b"\0" * 4), "no head"),
    ],
)
def test_what_is_no_head_is_refused_and_never_executed(content, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "head.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_head(path)
    assert says in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (a_head(layers=(layer(1, 4, float("nan")),)), "NaN"),
        (a_head(layers=(layer(1, 4, float("inf")),)), "NaN"),
        (a_head(layers=(layer(1, 5),)), "4 inputs"),
        (a_head(layers=(layer(3, 4), layer(1, 2))), "3 inputs"),
        (a_head(classes=(2,)), "classes"),
        (a_head(classes=(0, 0)), "classes"),
        (a_head(layers=(layer(3, 4),)), "3 outputs by sigmoid"),
        (a_head(layers=(layer(3, 4),), activation="softmax", classes=(1, 1)), "classes"),
        (a_head(layers=(layer(2, 4),), activation="softmax", classes=(0, 1)), "classes"),
        (a_head(layers=(layer(2, 4),), activation="softmax", classes=(-1,)), "classes"),
        (a_head(activation="softmax"), "1 outputs by softmax"),
        (a_head(layers=(*(layer(4, 4) for _ in range(5)), layer(1, 4))), "6 layers"),
        (a_head(shift=np.zeros(3, np.float32), scale=np.ones(3, np.float32)), "standardises"),
        (a_head(shift=np.zeros(4, np.float32), scale=np.ones(3, np.float32)), "standardises"),
        (a_head(shift=np.zeros(4, np.float32)), "without the other"),
        (a_head(scale=np.ones(4, np.float32)), "without the other"),
        (a_head(shift=np.zeros(4, np.float32), scale=np.zeros(4, np.float32)), "above zero"),
        (a_head(calibration=(float("nan"), 0.0)), "NaN"),
        (a_head(layers=()), "classes"),
        (a_head(family="oracle"), "oracle"),
        (a_head(inputs=("hidden", "mood"), layers=(layer(1, 5),)), "mood"),
        (a_head(inputs=("hidden", "position"), layers=(layer(1, 5),)), "position"),
        (a_head(family="draft-head", inputs=("hidden", "mood"), layers=(layer(1, 5),)), "mood"),
        (a_head(family="draft-head", inputs=("first", "first", "hidden"), layers=(layer(1, 6),)), "first"),
    ],
)
def test_a_head_that_contradicts_itself_is_refused(head, says, saved):
    with pytest.raises(ModelError, match=says):
        load_head(saved(head))


@pytest.mark.parametrize("name", ["0.gamma", "1.bias", "lm_head.weight", "7.weight"])
def test_a_tensor_that_no_head_has_is_refused(name, saved):
    path = saved(a_head())
    file = open_tensors(LocalFile(path))
    tensors = {known: file.tensor(known) for known in file.stored} | {name: np.ones(1, np.float32)}
    path.write_bytes(packed(tensors, file.metadata))
    with pytest.raises(ModelError, match=re.escape(repr(name))):
        load_head(path)


def test_a_type_that_no_head_has_is_refused_where_it_is_read(saved, tmp_path):
    whole = saved(a_head()).read_bytes()
    path = tmp_path / "other.safetensors"
    path.write_bytes(whole.replace(b'"F32"', b'"I32"'))
    with pytest.raises(ModelError, match=r"other\.safetensors.*'I32'"):
        load_head(path)


def test_a_full_disk_leaves_the_old_head_and_nothing_else(saved):
    """A limit on the size of files fails in the middle of one, as a full disk does."""
    resource = pytest.importorskip("resource")
    path = saved(a_head())
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 1000, limits[1]))
    try:
        with pytest.raises(ResourceError, match=r"head\.safetensors can't be written: File too large"):
            a_head(hidden_size=5000, layers=(layer(1, 5000),)).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_in_its_place_is_a_matter_of_its_name(tmp_path):
    (tmp_path / "head.safetensors").mkdir()
    with pytest.raises(UsageError, match="can't be written"):
        a_head().save(tmp_path / "head.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["head.safetensors"]


@pytest.mark.parametrize("shape", [[0, 4], [0, 1 << 62]])
def test_a_weight_of_no_values_is_refused(shape, tmp_path):
    path = tmp_path / "head.safetensors"
    a_head().save(path)
    said = json.loads(path.read_bytes()[8:].split(b"}}")[0] + b"}}")["__metadata__"]
    empty = {"dtype": "F32", "shape": shape, "data_offsets": [4, 4]}
    path.write_bytes(file_of({"__metadata__": said, "0.bias": F32, "0.weight": empty}, b"\0" * 4))
    with pytest.raises(ModelError, match=r"0\.weight"):
        load_head(path)


def test_a_head_that_is_cut_anywhere_is_refused(saved, tmp_path):
    whole = saved(a_head()).read_bytes()
    for end in range(0, len(whole), 7):
        path = tmp_path / "cut.safetensors"
        path.write_bytes(whole[:end])
        with pytest.raises(ModelError):
            load_head(path)


def test_a_missing_head_says_so(tmp_path):
    with pytest.raises(ModelError, match="can't be read"):
        load_head(tmp_path / "gone.safetensors")


def test_a_head_of_zeros_is_known():
    assert a_head(layers=(layer(1, 4, 0.0),)).is_zero
    assert a_head(layers=(layer(4, 4), layer(1, 4, 0.0))).is_zero
    assert not a_head().is_zero
