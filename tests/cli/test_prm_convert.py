"""Round trips: a GGUF written as a checkpoint in Hugging Face names, and converted back."""

import hashlib
import json
import re
import resource
import struct

import gguf
import numpy as np
import pytest
import yaml

from rsd_cli.cli.prm_convert import bytes_made, check_loads
from rsd_cli.engine.context import ContextOptions
from rsd_cli.engine.jobs import Observed, Read
from rsd_cli.engine.llama import C, DecodeAborted, Model
from rsd_cli.engine.quantize import PREFIX, quantizations, quantize
from rsd_cli.engine.seats import Engine
from rsd_cli.errors import ModelError, ResourceError
from rsd_cli.rewards.heads import load_head
from tests.rewards.checkpoint_files import COMMIT, safetensors, serving, write
from tests.tiny_gguf import write_llama, write_mamba

NAMES = {  # of Hugging Face's, for llama and qwen2
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def published_name(name):
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if block:
        return f"model.layers.{block[1]}.{NAMES[block[2]]}.{block[3]}"
    stem, kind = name.rsplit(".", 1)
    return f"{NAMES[stem]}.{kind}"


def halves(values, heads):
    """The inverse of what llama.cpp's converter does to the rows of queries and keys."""
    return values.reshape(heads, values.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)


def value(reader, key):
    field = reader.get_field(key)
    assert field, key
    return field.contents()


def as_checkpoint(path):
    """A GGUF's tensors, dequantized, as a checkpoint has them."""
    reader = gguf.GGUFReader(path)
    architecture = value(reader, "general.architecture")
    tensors = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        if architecture == "llama" and re.search(r"attn_[qk]\.weight", tensor.name):
            heads = "head_count_kv" if "attn_k" in tensor.name else "head_count"
            values = halves(values, value(reader, f"llama.attention.{heads}"))
        tensors[published_name(tensor.name)] = values
    return tensors


def checkpoint(directory, tensors, dtype="F32"):
    return write(directory, {"model.safetensors": safetensors(tensors, dtype)})


def logits(path):
    model = Model(path)
    engine = Engine(model, ContextOptions(64, 1))
    ids = model.tokenize("Hello World 1 + 1 = 2")
    engine.submit(0, Read(ids, tuple(range(min(model.n_vocab, 500))), ()))
    observed = None
    while observed is None:
        observed = next((update for update in engine.step() if isinstance(update, Observed)), None)
    engine.close()
    model.close()
    return np.array(observed.logits)


@pytest.fixture
def base(rsd):
    return write_llama(rsd.home / "base.gguf")


def converted(rsd, tensors, *more):
    checkpoint(rsd.home / "hf", tensors)
    return rsd("prm", "convert", "hf", "--base", "base.gguf", "-o", "out.gguf", *more)


def apart(one, other):
    """The largest difference, in parts of the logits that tell tokens apart."""
    return np.abs((one - other) / (1 + np.abs(other))).max()


def test_a_gguf_survives_the_way_over_a_checkpoint(rsd, base):
    done = converted(rsd, as_checkpoint(base), "--quant", "f16")
    assert done.code == 0, done.err
    assert done.out == "out.gguf\n"
    assert apart(logits(rsd.home / "out.gguf"), logits(base)) < 0.02  # as far as 16 bits go
    assert not list(rsd.home.glob("*.part"))


def test_it_is_quantized_as_its_base_would_be(rsd, base):
    done = converted(rsd, as_checkpoint(base), "--quant", "q8_0")
    assert done.code == 0, done.err
    assert "llama_model_loader" not in done.err
    quantize(base, rsd.home / "direct.gguf", "q8_0", lambda: False)
    assert apart(logits(rsd.home / "out.gguf"), logits(rsd.home / "direct.gguf")) < 0.15
    assert not list(rsd.home.glob("*.part"))


def test_how_the_base_lies_in_its_file_and_was_quantized_is_not_taken_over(rsd, base):
    """An empty list is written as a string of the same length, since the package writes none."""
    facts: dict[str, str | int | list[float]] = {
        "general.alignment": 4096,
        "quantize.imatrix.file": "of the base",
        "general.languages": "none",
        "general.tags": [1.5],
    }
    write_llama(base, metadata={**facts})
    key = b"general.languages"
    text, empty = struct.pack("<IQ4s", 8, 4, b"none"), struct.pack("<IIQ", 9, 8, 0)
    assert base.read_bytes().count(key + text) == 1
    base.write_bytes(base.read_bytes().replace(key + text, key + empty))
    done = converted(rsd, as_checkpoint(base), "--quant", "f16")
    assert done.code == 0, done.err
    assert apart(logits(rsd.home / "out.gguf"), logits(base)) < 0.02
    made = gguf.GGUFReader(rsd.home / "out.gguf")
    assert [name for name in facts if name in made.fields] == ["general.tags"]


def test_the_head_is_written_beside(rsd, base):
    tensors = as_checkpoint(base)
    width = tensors["model.norm.weight"].size
    del tensors["output.weight" if "output.weight" in tensors else "lm_head.weight"]  # as reward models are
    tensors["v_head.summary.weight"] = np.ones((1, width), np.float32)
    tensors["v_head.summary.bias"] = np.zeros(1, np.float32)
    done = converted(rsd, tensors, "--separator", r"\n\n")
    assert done.code == 0, done.err
    head = load_head(rsd.home / "out.head.safetensors")
    assert (head.hidden_size, head.separator) == (width, "\n\n")
    assert head.n_vocab == len(tensors["model.embed_tokens.weight"])
    assert head.base_sha256 == hashlib.sha256((rsd.home / "out.gguf").read_bytes()).hexdigest()
    assert np.isfinite(logits(rsd.home / "out.gguf")).all()


def test_no_gguf_is_left_without_its_head(rsd, base):
    tensors = as_checkpoint(base)
    tensors["score.weight"] = np.ones((2, tensors["model.norm.weight"].size), np.float32)
    (rsd.home / "out.head.safetensors").mkdir()
    done = converted(rsd, tensors)
    assert done.code == 2
    assert "out.head.safetensors can't be written" in done.err
    assert not list(rsd.home.glob("out.gguf*"))


def test_no_gguf_is_left_whose_head_fails_behind_the_work(rsd, base):
    tensors = as_checkpoint(base)
    tensors["score.weight"] = np.ones((2, tensors["model.norm.weight"].size), np.float32)
    checkpoint(rsd.home / "hf", tensors)
    stem = "x" * (255 - len(".head.safetensors"))  # while it is written, a head's name is longer
    done = rsd("prm", "convert", "hf", "--base", "base.gguf", "-o", f"{stem}.gguf")
    assert done.code == 2
    assert f"{stem}.head.safetensors can't be written: File name too long" in done.err
    assert not list(rsd.home.glob("x*"))


@pytest.mark.parametrize("quant", ["f16", "bf16", "q8_0", "q4_k_m"])
def test_the_space_that_is_asked_for_is_about_what_a_conversion_takes(quant, rsd, base):
    """Tensors of which the rows are no multiple of a quantization's blocks stay as they are, as in tiny models."""
    asked = bytes_made(base, quant)
    assert converted(rsd, as_checkpoint(base), "--quant", "f16").code == 0
    tensors = sum(tensor.n_bytes for tensor in gguf.GGUFReader(rsd.home / "out.gguf").tensors)
    if quant != "f16":
        quantize(rsd.home / "out.gguf", rsd.home / "small.gguf", quant, lambda: False)
        tensors += sum(tensor.n_bytes for tensor in gguf.GGUFReader(rsd.home / "small.gguf").tensors)
    assert tensors <= asked * 1.01
    if quant in {"f16", "bf16", "q8_0"}:
        assert asked == pytest.approx(tensors, rel=0.02)


def test_what_is_made_is_looked_at_where_its_prm_reads(tmp_path):
    """States are finite though logits are not, and a PRM without a head reads logits."""
    made = write_llama(tmp_path / "no-logits.gguf", logits=float("nan"))
    check_loads(made, 64)
    with pytest.raises(ModelError, match="nothing finite"):
        check_loads(made, None)
    with pytest.raises(ModelError, match="nothing finite"):
        check_loads(write_llama(tmp_path / "nothing.gguf", nan=True), 64)
    with pytest.raises(ModelError, match="reads 65 values"):
        check_loads(write_llama(tmp_path / "right.gguf"), 65)


def test_looking_at_what_is_made_can_be_aborted(tmp_path):
    """It loads the whole file, and nobody would ask behind it whether to go on."""
    with pytest.raises(DecodeAborted):
        check_loads(write_llama(tmp_path / "made.gguf"), 64, lambda: True)


def test_nothing_is_converted_over_a_file_that_is_there(rsd, base):
    tensors = as_checkpoint(base)
    files = checkpoint(rsd.home / "hf", tensors)
    before = {path: path.read_bytes() for path in (base, files / "model.safetensors")}
    args = ("prm", "convert", "hf", "--base", "base.gguf", "-o")
    rsd(*args, "base.gguf").refused(2, "base.gguf is there already")
    rsd(*args, "hf/model.safetensors").refused(2, "model.safetensors is there already")
    rsd(*args, "hf").refused(2, "hf is there already")
    rsd(*args, "gone/out.gguf").refused(2, "gone is no folder")
    (rsd.home / "out.head.safetensors").write_text("mine")
    rsd(*args, "out.gguf").refused(2, "out.head.safetensors", "no head")
    assert {path: path.read_bytes() for path in before} == before
    assert (rsd.home / "out.head.safetensors").read_text() == "mine"
    assert not list(rsd.home.rglob("*.part"))


def test_another_base_is_refused_with_both_sizes(rsd, base):
    tensors = as_checkpoint(base)
    name = "model.layers.0.mlp.up_proj.weight"
    rows, columns = tensors[name].shape
    tensors[name] = np.zeros((rows + 2, columns), np.float32)
    converted(rsd, tensors).refused(3, f"({rows + 2}, {columns})", f"({rows}, {columns})")
    assert not list(rsd.home.glob("out*"))


def test_another_number_of_layers_is_refused(rsd, base):
    tensors = as_checkpoint(base)
    deeper = {name.replace("layers.0.", "layers.9."): v for name, v in tensors.items() if "layers.0." in name}
    converted(rsd, tensors | deeper).refused(3, "10 layers")


def test_a_missing_tensor_is_named(rsd, base):
    tensors = as_checkpoint(base)
    del tensors["model.layers.0.self_attn.v_proj.weight"]
    converted(rsd, tensors).refused(3, "blk.0.attn_v.weight")


def test_a_prm_without_a_head_needs_its_output_matrix(rsd, base):
    tensors = as_checkpoint(base)
    del tensors["lm_head.weight"]
    converted(rsd, tensors).refused(3, "output.weight")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    assert converted(rsd, tensors, "--quant", "f16").code == 0
    (rsd.home / "out.gguf").rename(base)
    quantize(base, rsd.home / "small.gguf", "q4_0", lambda: False)
    del tensors["lm_head.weight"]
    checkpoint(rsd.home / "tied", tensors)
    for name in ("base.gguf", "small.gguf"):  # which hold the embeddings twice, the second one in two types
        done = rsd("prm", "convert", "tied", "--base", name, "-o", f"of-{name}")
        assert done.code == 0, done.err
    kinds = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(rsd.home / "small.gguf").tensors}
    assert kinds["output.weight"] != kinds["token_embd.weight"]


def test_values_that_are_not_finite_are_refused(rsd, base):
    tensors = as_checkpoint(base)
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    done = converted(rsd, tensors)
    assert done.code == 3
    assert "output_norm.weight" in done.err
    assert not list(rsd.home.glob("out*"))


def test_a_full_disk_is_no_conflict_of_output(rsd, base):
    """numpy reports a short write without an error number."""
    resource = pytest.importorskip("resource")
    checkpoint(rsd.home / "hf", as_checkpoint(base))
    running = rsd.start(
        *("prm", "convert", "hf", "--base", "base.gguf", "-o", "out.gguf"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 4, errors.decode()
    assert b"out.gguf.f16.part can't be written" in errors
    assert not list(rsd.home.glob("out*"))


def test_a_full_disk_while_quantizing_is_a_resource_error(rsd, base):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (base.stat().st_size // 8, limits[1]))
    try:
        with pytest.raises(ResourceError, match=r"No room left to write .*out\.gguf as q8_0"):
            quantize(base, rsd.home / "out.gguf", "q8_0", lambda: False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_goes_wrong_with_room_left_is_the_models_fault(rsd, base):
    (rsd.home / "bad.gguf").write_bytes(base.read_bytes()[:4000])
    with pytest.raises(ModelError, match="could not write") as caught:
        quantize(rsd.home / "bad.gguf", rsd.home / "out.gguf", "q8_0", lambda: False)
    assert not caught.value.hint, "llama.cpp said why"


def test_a_repository_is_not_read_offline(rsd, base):
    with serving("some/prm") as hub:
        hub.files = {"model.safetensors": safetensors(as_checkpoint(base))}
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        arguments = ("prm", "convert", "some/prm", "--base", "base.gguf", "-o", "out.gguf", "--offline")
        rsd(*arguments, env=env).refused(2, "'some/prm'", "--offline", "directory")
    assert hub.asked == []
    assert converted(rsd, as_checkpoint(base), "--offline").code == 0


def test_an_unknown_quantization_is_refused_with_common_ones(rsd, base):
    converted(rsd, as_checkpoint(base), "--quant", "q3").refused(2, "q3", "q4_k_m")


@pytest.mark.parametrize("quant", ["iq2_xs", "iq3_xxs", "iq3_xs", "Q2_K_S"])
def test_a_quantization_that_needs_an_importance_matrix_is_refused_before_anything_is_read(quant, rsd):
    arguments = ("prm", "convert", "gone", "--base", "gone.gguf", "-o", "out.gguf", "--quant", quant)
    rsd(*arguments).refused(2, quant.lower(), "importance matrix", "q4_k_m")


def test_llama_cpp_writes_every_quantization_that_is_offered_and_no_other(tmp_path):
    """Of rows that are whole blocks of every type."""
    source = write_llama(tmp_path / "source.gguf", n_embd=256, n_layer=1)
    offered = quantizations()
    for name in offered:
        quantize(source, tmp_path / "made.gguf", name, lambda: False)
    params = C.llama_model_quantize_default_params()
    for constant in (name for name in dir(C) if name.startswith(PREFIX)):
        if constant.removeprefix(PREFIX).lower() not in offered:
            params.ftype = getattr(C, constant)
            assert C.llama_model_quantize(bytes(source), bytes(tmp_path / "made.gguf"), params) != 0, constant


def test_a_base_of_another_architecture_is_refused(rsd):
    write_mamba(rsd.home / "base.gguf")
    converted(rsd, {"x": np.zeros((2, 2), np.float32)}).refused(3, "mamba")


def test_a_pulled_conversion_knows_the_separator_of_its_repository(rsd, base):
    tensors = as_checkpoint(base)
    tensors["score.weight"] = np.ones((2, tensors["model.norm.weight"].size), np.float32)
    models = {
        "of-the-prm": {"unverified": "a test", "sources": [{"kind": "path", "path": str(base)}]},
        "made": {
            "unverified": "made here",
            "sources": [{"kind": "convert", "repo": "some/PURE-PRM-1.5B", "base": "of-the-prm"}],
        },
    }
    rsd.write_models(yaml.safe_dump({"models": models}))
    with serving("some/PURE-PRM-1.5B") as hub:
        hub.files["model.safetensors"] = safetensors(tensors, "F32")
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        done = rsd("models", "pull", "made", "--quiet", env=env)
    assert (done.code, done.err) == (0, "")  # no warning of a guess
    (path,) = (rsd.home / "rsd_home").rglob("*.head.safetensors")
    head, (made,) = load_head(path), path.parent.glob("made-*.gguf")
    assert (head.separator, head.facts["commit"]) == ("\n\n", COMMIT)
    verdicts = json.loads((path.parent / "verdicts.json").read_bytes())
    assert verdicts[str(made)]["sha256"] == head.base_sha256  # so that its use needs no hashing


def test_a_trio_pulls_what_has_to_be_converted(rsd, base):
    """Base and checkpoint fetched, converted, and the head taken, by one command."""
    tensors = as_checkpoint(base)
    width = tensors["model.norm.weight"].size
    tensors["score.weight"] = np.ones((2, width), np.float32)
    entry = {"kind": "convert", "repo": "some/prm", "revision": "main", "base": "of-the-prm", "quant": "q8_0"}
    models = {
        "models": {
            "of-the-prm": {"unverified": "a test", "sources": [{"kind": "path", "path": str(base)}]},
            "made": {"unverified": "made here", "sources": [entry]},
        },
        "prms": {
            "stepwise": {
                "family": "value-head",
                "layout": "trl",
                "model": "made",
                "threshold": 0.5,
                "calibrated_on": "a test",
            }
        },
    }
    rsd.write_models(yaml.safe_dump(models))
    with serving("some/prm") as hub:
        hub.files["config.json"] = b"{}"
        hub.files["model.safetensors"] = safetensors(tensors, "F32")
        hub.files["model.safetensors.index.json"] = b"{}"
        hub.missing = {"model.safetensors.index.json"}
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        rsd("models", "pull", "made", "--quiet", env=env).refused(3, "index.json: HTTP 404")
        assert hub.sent == len(hub.files["model.safetensors"])
        assert "partial" in rsd("models", "list").out
        hub.missing = set()
        done = rsd("models", "pull", "made", "--quiet", env=env)
        assert hub.sent == len(hub.files["model.safetensors"]) + 2
    assert done.code == 0, done.err
    assert done.err.startswith("The separator")  # a warning, and no progress
    assert done.err.count("\n") == 1
    assert not list((rsd.home / "rsd_home").rglob("*.checkpoint"))
    lines = json.dumps({"problem": "1 + 2?", "steps": ["We add", "so 3"]})
    scored = rsd("prm", "score", "-", "--prm", "stepwise", "--json", "--threads", "1", stdin=lines.encode())
    assert scored.code == 0, scored.err
    assert len(json.loads(scored.out)["rewards"]) == len(["We add", "so 3"])
    heads = (rsd.home / "rsd_home").rglob("*.head.safetensors")
    assert [path for path in heads if path.is_file()]
    assert rsd("models", "rm", "made", "--yes").code == 0
    left = [path.name for path in (rsd.home / "rsd_home").rglob("made*")]
    assert not [name for name in left if not name.endswith(".lock")]
