"""Heads of published checkpoints: every layout, every way to store it, and nothing executed."""

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from rsd_cli.errors import ModelError
from rsd_cli.rewards.checkpoints import Checkpoint, LocalFiles
from rsd_cli.rewards.published import separator_was_guessed, take_head
from tests.rewards.checkpoint_files import Claimed, pytorch_bin, safetensors, sharded, write

H = 16
BACKBONE = {
    "model.embed_tokens.weight": np.ones((40, H), np.float32),
    "model.layers.0.self_attn.q_proj.weight": np.ones((H, H), np.float32),
    "model.norm.weight": np.ones(H, np.float32),
}


def values(*shape):
    """Numbers that bfloat16 holds exactly."""
    return (np.arange(np.prod(shape)).reshape(shape) % 15 - 7).astype(np.float32) / 8


LAYOUTS = {
    "skywork": (
        {"v_head.summary.weight": values(1, H), "v_head.summary.bias": values(1)}, "sigmoid", (0,), "\n",
    ),
    "qwen": (
        {
            "score.0.weight": values(H, H), "score.0.bias": values(H),
            "score.2.weight": values(2, H), "score.2.bias": values(2),
        },
        "softmax", (1,), "<extra_0>",
    ),
    "trl": ({"score.weight": values(2, H), "score.bias": values(2)}, "softmax", (1,), "\n"),
    "pure": ({"score.weight": values(2, H)}, "softmax", (1,), "\n"),
    "reasoneval": ({"score_head.weight": values(3, H)}, "softmax", (1, 2), ""),
    "one score": ({"score.weight": values(1, H)}, "sigmoid", (0,), "\n"),
}  # fmt: skip
STORED = {
    "safetensors": lambda tensors: {"model.safetensors": safetensors(tensors)},
    "safetensors f16": lambda tensors: {"model.safetensors": safetensors(tensors, "F16")},
    "pytorch": lambda tensors: {"pytorch_model.bin": pytorch_bin(tensors)},
    "pytorch f32": lambda tensors: {"pytorch_model.bin": pytorch_bin(tensors, "F32")},
}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_taken_out_of_every_kind_of_file(layout, stored, tmp_path):
    tensors, activation, classes, separator = LAYOUTS[layout]
    files = write(tmp_path / "m", STORED[stored](BACKBONE | tensors))
    head = take_head(Checkpoint(LocalFiles(files)))
    assert (head.activation, head.classes, head.separator) == (activation, classes, separator)
    assert (head.hidden_size, head.n_vocab) == (H, 40)
    weights = [tensor for name, tensor in tensors.items() if name.endswith("weight")]
    for layer, weight in zip(head.layers, weights, strict=True):
        np.testing.assert_array_equal(layer.weight, weight)
    assert 0 <= head.reward(np.ones(H, np.float32)) <= 1


def test_a_head_in_one_of_many_shards_is_found(tmp_path):
    head = LAYOUTS["skywork"][0]
    files = sharded({"model-00001-of-00002.safetensors": BACKBONE, "model-00002-of-00002.safetensors": head})
    taken = take_head(Checkpoint(LocalFiles(write(tmp_path, files))))
    np.testing.assert_array_equal(taken.layers[0].weight, head["v_head.summary.weight"])


def test_a_prefix_and_another_separator_are_taken(tmp_path):
    tensors = {f"model.{name}": tensor for name, tensor in LAYOUTS["trl"][0].items()}
    files = write(tmp_path, STORED["safetensors"](BACKBONE | tensors))
    assert take_head(Checkpoint(LocalFiles(files)), separator="\n\n").separator == "\n\n"


@pytest.mark.parametrize(
    ("name", "separator", "guessed"),
    [
        ("trl-lib--Qwen2-0.5B-Reward-Math-Sheperd", "\n", False),
        ("HuggingFaceH4--Qwen2.5-Math-7B-Instruct-PRM-0.2", "\n\n", False),
        ("plaguss--Qwen2.5-0.5B-Math-Shepherd-PRM-0.2", "\n\n", False),
        ("jinachris--PURE-PRM-7B", "\n\n", False),
        ("me--mine", "\n", True),
    ],
)
def test_the_separator_is_that_of_the_repository_or_a_guess(name, separator, guessed, tmp_path):
    files = Checkpoint(LocalFiles(write(tmp_path / name, STORED["safetensors"](LAYOUTS["pure"][0]))))
    head = take_head(files)
    assert (head.separator, separator_was_guessed(head)) == (separator, guessed)
    told = take_head(files, separator="###")
    assert (told.separator, separator_was_guessed(told)) == ("###", False)


def test_a_head_of_a_published_layout_is_no_guess(tmp_path):
    for name in ("skywork", "qwen", "reasoneval"):
        files = write(tmp_path / name, STORED["safetensors"](LAYOUTS[name][0]))
        assert not separator_was_guessed(take_head(Checkpoint(LocalFiles(files))))


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"config.json": b"{}"},
        STORED["safetensors"](BACKBONE),
        STORED["safetensors"](BACKBONE | {"score.weight": values(7, H)}),
        {"model.safetensors.index.json": b"[]"},
        {"model.safetensors.index.json": json.dumps({"weight_map": {"score.weight": "../x"}}).encode()},
        {"pytorch_model.bin": b"\x80\x02}q\x00."},
        {"pytorch_model.bin": b"PK\x03\x04 cut"},
    ],
)
def test_what_has_no_head_is_refused_in_a_sentence(files, tmp_path):
    with pytest.raises(ModelError) as caught:
        take_head(Checkpoint(LocalFiles(write(tmp_path / "m", files))))
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def archive(data, compression=zipfile.ZIP_STORED, **members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        file.writestr("m/data.pkl", data)
        for name, content in members.items():
            file.writestr(f"m/data/{name}", content)
    return out.getvalue()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_code_runs_none(protocol, tmp_path):
    trap = tmp_path / "was-executed"
    data = pickle.dumps({"score.weight": Evil(trap)}, protocol)
    files = write(tmp_path / "m", {"pytorch_model.bin": archive(data)})
    with pytest.raises(ModelError, match=r"io\.open|builtins\.open|_io\.open"):
        take_head(Checkpoint(LocalFiles(files)))
    assert not trap.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"ctorch\nFloatStorage\n(tR.",  # calls a storage type
        b"ccollections\nOrderedDict\n(cos\nsystem\ntR.",
        b"Vfile\n(t\x85Q.",
        b"\x80\x02}q\x00(X\x01\x00\x00\x00a",
        b"(" * 1000,
        b"\x80\x04\x8e" + b"\xff" * 8 + b".",  # bytes longer than anything
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo of 16 GB
        b"\x80\x02}p99999999999999999999\n.",
        b"\x80\x04\x95" + b"\xff" * 8 + b".",
    ],
)
def test_strange_pickles_are_refused(data, tmp_path):
    files = write(tmp_path / "m", {"pytorch_model.bin": archive(data)})
    with pytest.raises(ModelError):
        take_head(Checkpoint(LocalFiles(files)))


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n("
STORAGE = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x01tQ"
TWICE = b")" + b"2\x86" * 40  # a tuple of itself and itself, and so on: 2^40 values in 81 bytes
BY_MEMO = b")q\x00" + b"0h\x00h\x00\x86q\x00" * 40 + b"0"
OF_LISTS = b"]q\x00" + b"0(h\x00h\x00lq\x00" * 40 + b"0"
BY_CALLS = b"ctorch._utils\n_rebuild_parameter\nq\x010)q\x000" + b"h\x01h\x00h\x00\x86\x85Rq\x000" * 40
SETS = (
    b"(\x91" + b"q\x000(h\x00(h\x00\x91\x91" * 40
)  # {x, {x}} and so on: two of them are compared 2^40 times
BOMBS = {
    "shape": TENSOR + STORAGE + b"K\x00" + TWICE + b")\x89}tR.",
    "shape of lists": OF_LISTS + TENSOR + STORAGE + b"K\x00h\x00)\x89}tR.",
    "kind": b"(" + TWICE + b"K\x01K\x01tQ.",
    "kind of lists": OF_LISTS + b"(h\x00K\x01K\x01tQ.",
    "storage's name": OF_LISTS + b"(U\x07storageU\x01xh\x00tQ.",
    "key": b"}" + TWICE + b"K\x01s.",
    "key by memo": BY_MEMO + b"}h\x00K\x01s.",
    "key by calls": BY_CALLS + b"}h\x00K\x01s.",
    "deep key": b"})" + b"\x85" * 1_000_000 + b"K\x01s.",
    "wide key": b"}(" + b"N" * 100_000 + b"tK\x01s.",
    "keys of sets": b"}" + SETS + b"K\x01s" + SETS + b"K\x01s.",
    "set": b"}U\x01a\x8f(K\x01\x90s.",
    "state": b"}U\x0cscore.weight"
    + TENSOR
    + STORAGE
    + b"K\x00K\x01\x85K\x01\x85\x89}tR}U\x05shapeU\x03abcsbs.",
    "storage's state": TENSOR + STORAGE + b"}U\x05dtypeNsbK\x00K\x01\x85K\x01\x85\x89}tR.",
    "arguments": b"ccollections\nOrderedDict\n]U\x01aK\x01\x86a\x85R.",
    "no end of a mark": b"}K\x01t.",
    "nothing there": b"\x86.",
    "nothing kept": b"}h\x07K\x01s.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_pickle_of_something_large_is_refused_at_once(name, tmp_path):
    """In a process of its own, since what it would hang in is C code."""
    write(tmp_path, {"pytorch_model.bin": archive(b"\x80\x02" + BOMBS[name])})
    code = (
        "from pathlib import Path\n"
        "from rsd_cli.errors import ModelError\n"
        "from rsd_cli.rewards.checkpoints import Checkpoint, LocalFiles\n"
        "try: Checkpoint(LocalFiles(Path('.'))).tensor('score.weight')\n"
        "except ModelError as error: print(error)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert "pytorch_model.bin is refused" in done.stdout
    assert len(done.stdout) < 200


def test_what_torch_writes_beside_tensors_is_passed_over(tmp_path):
    """The _metadata of a state_dict, which is an attribute of an OrderedDict; shapes and names said twice."""
    table = OrderedDict({"metadata": OrderedDict({"": {"version": 1}}), "sizes": [(2, H)] * 300})
    table.__dict__["_metadata"] = table["metadata"]
    tensors = {"score.weight": values(2, H), "a": values(2, H), "b": values(2, H)}
    files = write(tmp_path, {"pytorch_model.bin": pytorch_bin(tensors, extra=table)})
    np.testing.assert_array_equal(take_head(Checkpoint(LocalFiles(files))).layers[0].weight, values(2, H))


SHAPES = ((-1, H), (1 << 62, 1 << 62), (2, 1 << 40), (1 << 40,) * 9, ("2", H), (3, H), (0, 1 << 62))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_shape_that_its_storage_has_no_room_for_is_refused(shape, tmp_path):
    strides = tuple(int(np.prod(shape[i + 1 :], dtype=object)) for i in range(len(shape)))
    with pytest.raises(ModelError, match=r"m/pytorch_model\.bin|shape"):
        take(tmp_path, {"score.weight": Claimed(values(2, H), shape, strides)})


@pytest.mark.parametrize("offset", [-1, -(1 << 40), 1, 1 << 80, 1.0, "0"])
def test_an_offset_outside_its_storage_is_refused(offset, tmp_path):
    with pytest.raises(ModelError, match=r"m/pytorch_model\.bin"):
        take(tmp_path, {"score.weight": Claimed(values(2, H), (2, H), (H, 1), offset)})


def test_a_part_of_a_storage_is_read(tmp_path):
    head = take(tmp_path, {"score.weight": Claimed(values(4, H), (2, H), (H, 1), 2 * H)})
    np.testing.assert_array_equal(head.layers[0].weight, values(4, H)[2:])


def take(directory, tensors):
    return take_head(
        Checkpoint(LocalFiles(write(directory / "m", {"pytorch_model.bin": pytorch_bin(tensors)})))
    )


@pytest.mark.parametrize(
    "head",
    [
        {"score.weight": np.full((2, H), np.nan, np.float32)},
        {"score.weight": values(2, H), "score.bias": np.full(2, np.inf, np.float32)},
        {"score.weight": values(2, H), "score.bias": values(3)},
        {"score.weight": values(2, H), "score.bias": values(1)[0]},
        {"score.0.weight": values(H, H), "score.2.weight": values(2, H + 1)},
    ],
)
def test_a_head_that_computes_nothing_is_refused_before_it_is_saved(head, tmp_path):
    files = write(tmp_path / "m", {"model.safetensors": safetensors(head, "F32")})
    with pytest.raises(ModelError, match="/m "):
        take_head(Checkpoint(LocalFiles(files)))


def test_types_that_no_head_has_may_stand_beside_it(tmp_path):
    whole = safetensors({"model.position_ids": values(4), "score.weight": values(2, H)}, "F32")
    files = write(tmp_path / "m", {"model.safetensors": whole.replace(b'"F32"', b'"I32"', 1)})
    np.testing.assert_array_equal(take_head(Checkpoint(LocalFiles(files))).layers[0].weight, values(2, H))
    last = whole.replace(b'"F32"', b'"I32"')
    with pytest.raises(ModelError, match="'I32'"):
        take_head(Checkpoint(LocalFiles(write(tmp_path / "m", {"model.safetensors": last}))))


def test_an_index_that_names_the_wrong_shard_is_refused(tmp_path):
    files = sharded({"one.safetensors": BACKBONE, "two.safetensors": LAYOUTS["pure"][0]})
    index = {"weight_map": {"score.weight": "one.safetensors"}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    with pytest.raises(ModelError, match="index"):
        take_head(Checkpoint(LocalFiles(write(tmp_path / "m", files))))


def test_values_that_a_head_can_not_have_are_refused(tmp_path):
    files = write(tmp_path / "m", {"pytorch_model.bin": pytorch_bin({"score.weight": values(2, H)}, "I64")})
    with pytest.raises(ModelError, match="no head has"):
        take_head(Checkpoint(LocalFiles(files)))
    turned = {"pytorch_model.bin": pytorch_bin({"score.weight": values(H, 2).T})}
    with pytest.raises(ModelError, match="no head has"):
        take_head(Checkpoint(LocalFiles(write(tmp_path / "t", turned))))


def test_a_compressed_archive_is_refused(tmp_path):
    whole = pytorch_bin({"score.weight": values(2, H)})
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        data, content = file.read("pytorch_model/data.pkl"), file.read("pytorch_model/data/0")
    files = {"pytorch_model.bin": archive(data, zipfile.ZIP_DEFLATED, **{"0": content})}
    with pytest.raises(ModelError, match="compressed"):
        take_head(Checkpoint(LocalFiles(write(tmp_path / "m", files))))


def test_an_archive_with_any_byte_changed_gives_a_head_or_a_refusal(tmp_path):
    whole = pytorch_bin({"score.weight": values(2, H)})
    random = np.random.default_rng(0)
    for at in random.integers(0, len(whole), 400):
        changed = bytearray(whole)
        changed[at] = random.integers(256)
        files = write(tmp_path / "m", {"pytorch_model.bin": bytes(changed)})
        with contextlib.suppress(ModelError):
            take_head(Checkpoint(LocalFiles(files)))


def test_an_archive_cut_anywhere_is_refused(tmp_path):
    whole = pytorch_bin({"score.weight": values(2, H)})
    for end in range(0, len(whole) - 1, 41):
        files = write(tmp_path / "m", {"pytorch_model.bin": whole[:end]})
        with pytest.raises(ModelError):
            take_head(Checkpoint(LocalFiles(files)))


def test_a_directory_that_can_not_be_read_is_no_checkpoint(tmp_path):
    with pytest.raises(ModelError, match="gone can't be read: No such file"):
        Checkpoint(LocalFiles(tmp_path / "gone")).shapes()
