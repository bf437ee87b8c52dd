"""Writes tiny GGUF files with random weights, so that tests run the real llama.cpp in milliseconds.

The first dimension of every hidden state is a large constant which no layer writes to. It dominates the root
mean square in each norm, so that a norm is close to a plain scaling and the first column of the output matrix
acts as a bias on the logits: `favour` sets that bias, in logits, for the tokens it names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from gguf import GGUFWriter, TokenType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float32]
    Value: TypeAlias = str | bool | int | float | list[float]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    " {{ message['content'] }} {{ eos_token }}{% else %}[INST] {{ message['content'] }} [/INST]{% endif %}"
    "{% endfor %}"
)


def _words(text: str, before: str = "") -> list[str]:
    return [before + word for word in text.split()]


WORDS = (
    *("\n\n", ".\n\n", "?\n\n", ":\n\n", "}\n\n", ".\n"),
    *_words("+ - = $ the is of and to we so answer number equals then has There are sum step", " "),
    *_words("that each Hello World Step The So system user assistant \\boxed"),
)
OTHER_WORDS = (
    *("\n\n", ".\n\n"),
    *_words("= + und der die das ist wir also Antwort Zahl Summe dann hat jede", " "),
    *_words("Hello World Schritt \\boxed"),
)
FAVOUR: Mapping[str, float] = {"\n\n": 3.0, ".\n\n": 3.0, "<eos>": 2.0}

_CONSTANT = 32.0  # the first dimension of every hidden state
_RARE = -1000.0  # the bias of a token that is never to be sampled


@dataclass
class _Vocabulary:
    """The tokenizer's part of a file."""

    model: str
    tokens: list[str]
    types: list[int]
    eos: int
    bos: int
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    common: set[int] = field(default_factory=set)  # tokens of printable text, which sampling may choose

    def add(self, token: str, kind: int) -> int:
        self.tokens.append(token)
        self.types.append(kind)
        return len(self.tokens) - 1

    def pad(self, size: int) -> None:
        """Fills the vocabulary up with unused tokens, as real models do."""
        if size < len(self.tokens):
            raise ValueError(f"the vocabulary has {len(self.tokens)} tokens, more than {size}")
        while len(self.tokens) < size:
            self.add(f"[PAD{len(self.tokens)}]", TokenType.UNUSED)

    def index(self, text: str) -> int:
        """The token of a plain text; `<eos>` stands for the end of a turn."""
        if text == "<eos>":
            return self.eos
        spelt = text if text in self.tokens else _spell(text) if self.merges else text.replace(" ", "▁")
        return self.tokens.index(spelt)

    def bias(self, favour: Mapping[str, float]) -> Floats:
        bias = np.full(len(self.tokens), _RARE, np.float32)
        bias[sorted(self.common)] = 0
        for text, value in favour.items():
            bias[self.index(text)] = value
        return bias


@dataclass
class _Weights:
    """Random tensors that leave the constant dimension alone."""

    rng: np.random.Generator
    n_embd: int
    tensors: dict[str, Floats] = field(default_factory=dict)

    def put(self, name: str, value: Floats) -> None:
        self.tensors[name] = np.ascontiguousarray(value, np.float32)

    def matrix(self, name: str, rows: int, columns: int, gain: float = 1.0) -> None:
        """A matrix whose output has `gain` times the input's scale."""
        self.put(name, self.normal(rows, columns) * np.float32(gain / columns**0.5))

    def back(self, name: str, columns: int, gain: float) -> None:
        """A matrix that writes to the hidden state."""
        value = self.normal(self.n_embd, columns) * np.float32(gain / columns**0.5)
        value[0] = 0
        self.put(name, value)

    def norm(self, name: str, *, constant: float = 0.0) -> None:
        """Undoes the constant's share in the root mean square, for the other dimensions."""
        value = np.full(self.n_embd, _CONSTANT / self.n_embd**0.5, np.float32)
        value[0] = constant / self.n_embd**0.5
        self.put(name, value)

    def normal(self, *shape: int) -> Floats:
        return self.rng.standard_normal(shape, dtype=np.float32)

    def ends(self, bias: Floats, *, logits: float, norm: str, nan: bool) -> None:
        """Input embeddings, the last norm and the output matrix."""
        embedding = self.normal(len(bias), self.n_embd) * np.float32(0.5)
        embedding[:, 0] = _CONSTANT
        self.put("token_embd.weight", embedding)
        self.norm(norm, constant=1.0)
        if nan:
            self.tensors[norm][1] = np.nan
        output = self.normal(len(bias), self.n_embd) * np.float32(logits / self.n_embd**0.5)
        output[:, 0] = bias
        self.put("output.weight", output)

    def attention(self, layer: str, n_head: int, n_head_kv: int) -> None:
        n_kv = self.n_embd // n_head * n_head_kv
        self.matrix(f"{layer}.attn_q.weight", self.n_embd, self.n_embd, 4.0)
        self.matrix(f"{layer}.attn_k.weight", n_kv, self.n_embd, 4.0)
        self.matrix(f"{layer}.attn_v.weight", n_kv, self.n_embd)
        self.back(f"{layer}.attn_output.weight", self.n_embd, 2.0)

    def feed_forward(self, layer: str, n_ff: int) -> None:
        self.norm(f"{layer}.ffn_norm.weight")
        self.matrix(f"{layer}.ffn_gate.weight", n_ff, self.n_embd, 1.0)
        self.matrix(f"{layer}.ffn_up.weight", n_ff, self.n_embd)
        self.back(f"{layer}.ffn_down.weight", n_ff, 1.0)


def write_llama(
    path: Path,
    *,
    seed: int = 0,
    vocab: int = 448,
    n_ctx_train: int = 2048,
    template: str | None = CHATML,
    add_bos: bool = False,
    n_embd: int = 64,
    n_layer: int = 2,
    n_head: int = 4,
    n_head_kv: int = 2,
    name: str = "tiny",
    architecture: Literal["llama", "qwen2"] = "llama",
    favour: Mapping[str, float] = FAVOUR,
    extra: Sequence[str] = (),
    metadata: Mapping[str, Value] | None = None,
    nan: bool = False,
    logits: float = 1.2,
) -> Path:
    """A transformer with a byte-level BPE vocabulary; `extra` adds control tokens, `metadata` any keys."""
    tokenizer = _bpe(WORDS, vocab, extra)
    weights = _transformer(seed, n_embd, n_layer, n_head, n_head_kv, biases=architecture == "qwen2")
    weights.ends(tokenizer.bias(favour), logits=logits, norm="output_norm.weight", nan=nan)
    writer = _writer(path, architecture, name, tokenizer, template, add_bos=add_bos)
    _shape(writer, n_ctx_train, n_embd, n_layer, n_head, n_head_kv)
    return _finish(writer, weights, metadata, path)


def write_other_vocab(
    path: Path,
    *,
    seed: int = 0,
    vocab: int = 700,
    template: str | None = CHATML,
    name: str = "tiny-other",
    favour: Mapping[str, float] = FAVOUR,
    nan: bool = False,
) -> Path:
    """As `write_llama`, with other merges and another size: no draft for its files, nor the reverse."""
    tokenizer = _bpe(OTHER_WORDS, vocab, ())
    weights = _transformer(seed, 64, 2, 4, 2)
    weights.ends(tokenizer.bias(favour), logits=1.2, norm="output_norm.weight", nan=nan)
    writer = _writer(path, "llama", name, tokenizer, template, add_bos=False)
    _shape(writer, 2048, 64, 2, 4, 2)
    return _finish(writer, weights, None, path)


def write_spm(
    path: Path,
    *,
    seed: int = 0,
    vocab: int = 512,
    n_ctx_train: int = 2048,
    template: str | None = LLAMA2,
    add_bos: bool = True,
    newlines: bool = True,
    name: str = "tiny-spm",
    favour: Mapping[str, float] | None = None,
    extra: Sequence[str] = (),
    metadata: Mapping[str, Value] | None = None,
    nan: bool = False,
) -> Path:
    """A SentencePiece vocabulary; without `newlines` a line feed is always a byte token, as in Llama 2."""
    tokenizer = _spm(vocab, extra, newlines=newlines)
    if favour is None:
        favour = FAVOUR if newlines else {"<0x0A>": 5.0, "<eos>": FAVOUR["<eos>"]}
    weights = _transformer(seed, 64, 2, 4, 2)
    weights.ends(tokenizer.bias(favour), logits=1.2, norm="output_norm.weight", nan=nan)
    writer = _writer(path, "llama", name, tokenizer, template, add_bos=add_bos)
    _shape(writer, n_ctx_train, 64, 2, 4, 2)
    return _finish(writer, weights, metadata, path)


def write_mamba(
    path: Path,
    *,
    seed: int = 0,
    vocab: int = 448,
    n_ctx_train: int = 2048,
    template: str | None = CHATML,
    name: str = "tiny-mamba",
    favour: Mapping[str, float] = FAVOUR,
    nan: bool = False,
) -> Path:
    """A recurrent model: its memory cannot be cut back to an earlier position."""
    n_embd, n_layer, d_conv, d_state, dt_rank = 64, 2, 4, 16, 4
    d_inner = 2 * n_embd
    tokenizer = _bpe(WORDS, vocab, ())
    weights = _Weights(np.random.default_rng(seed), n_embd)
    for i in range(n_layer):
        layer = f"blk.{i}"
        weights.norm(f"{layer}.attn_norm.weight")
        weights.matrix(f"{layer}.ssm_in.weight", 2 * d_inner, n_embd, 1.5)
        weights.put(f"{layer}.ssm_conv1d.weight", np.float32(0.5) * weights.normal(d_inner, d_conv))
        weights.put(f"{layer}.ssm_conv1d.bias", weights.normal(d_inner))
        weights.matrix(f"{layer}.ssm_x.weight", dt_rank + 2 * d_state, d_inner, 0.5)
        weights.matrix(f"{layer}.ssm_dt.weight", d_inner, dt_rank)
        weights.put(f"{layer}.ssm_dt.bias", weights.normal(d_inner))
        weights.put(f"{layer}.ssm_a", -np.exp(weights.normal(d_inner, d_state)))
        weights.put(f"{layer}.ssm_d", weights.normal(d_inner))
        weights.back(f"{layer}.ssm_out.weight", d_inner, 0.25)
    weights.ends(tokenizer.bias(favour), logits=2.2, norm="output_norm.weight", nan=nan)
    writer = _writer(path, "mamba", name, tokenizer, template, add_bos=False)
    _shape(writer, n_ctx_train, n_embd, n_layer, 0, 0)
    writer.add_ssm_conv_kernel(d_conv)
    writer.add_ssm_inner_size(d_inner)
    writer.add_ssm_state_size(d_state)
    writer.add_ssm_time_step_rank(dt_rank)
    writer.add_ssm_dt_b_c_rms(True)  # keeps random states from growing
    return _finish(writer, weights, None, path)


def write_hybrid(
    path: Path,
    *,
    seed: int = 0,
    vocab: int = 448,
    n_ctx_train: int = 2048,
    template: str | None = CHATML,
    name: str = "tiny-hybrid",
    favour: Mapping[str, float] = FAVOUR,
    nan: bool = False,
) -> Path:
    """An LFM2: a short convolution (recurrent) in the first layer, attention in the second."""
    n_embd, n_head, n_head_kv, d_conv = 64, 4, 2, 3
    tokenizer = _bpe(WORDS, vocab, ())
    weights = _Weights(np.random.default_rng(seed), n_embd)
    for layer in ("blk.0", "blk.1"):
        weights.norm(f"{layer}.attn_norm.weight")
        weights.feed_forward(layer, 2 * n_embd)
    weights.matrix("blk.0.shortconv.in_proj.weight", 3 * n_embd, n_embd, 2.0)
    weights.put("blk.0.shortconv.conv.weight", weights.normal(n_embd, d_conv))
    weights.back("blk.0.shortconv.out_proj.weight", n_embd, 0.5)
    weights.attention("blk.1", n_head, n_head_kv)
    for norm in ("attn_q_norm", "attn_k_norm"):
        weights.put(f"blk.1.{norm}.weight", np.full(n_embd // n_head, 1.5, np.float32))
    weights.ends(tokenizer.bias(favour), logits=1.8, norm="token_embd_norm.weight", nan=nan)
    writer = _writer(path, "lfm2", name, tokenizer, template, add_bos=False)
    _shape(writer, n_ctx_train, n_embd, 2, n_head, [0, n_head_kv])
    writer.add_shortconv_l_cache(d_conv)
    return _finish(writer, weights, None, path)


def write_without_template(path: Path, *, seed: int = 0, nan: bool = False) -> Path:
    """A llama file that names no chat template."""
    return write_llama(path, seed=seed, template=None, name="tiny-plain", nan=nan)


def truncated(source: Path, target: Path, n: int) -> Path:
    """The first `n` bytes of a file; with a negative `n` all but the last ones."""
    target.write_bytes(source.read_bytes()[:n])
    return target


def with_bytes(source: Path, target: Path, offset: int, data: bytes) -> Path:
    """A copy of a file with `data` written over it at `offset`."""
    content = bytearray(source.read_bytes())
    content[offset : offset + len(data)] = data
    target.write_bytes(content)
    return target


def _alphabet() -> dict[int, str]:
    """GPT-2's letters for the 256 bytes."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


_ALPHABET = _alphabet()


def _spell(text: str) -> str:
    return "".join(_ALPHABET[byte] for byte in text.encode())


def _printable(byte: int) -> bool:
    return 0x20 <= byte < 0x7F or byte == 0x0A


def _bpe(words: Sequence[str], size: int, extra: Sequence[str]) -> _Vocabulary:
    vocabulary = _Vocabulary("gpt2", list(_ALPHABET.values()), [int(TokenType.NORMAL)] * 256, eos=0, bos=0)
    vocabulary.common = {i for i, byte in enumerate(_ALPHABET) if _printable(byte)}
    known = set(vocabulary.tokens)
    for word in map(_spell, words):
        # Line feeds merge first, so that a paragraph's end is one token whatever comes before it.
        start = len(word.rstrip(_ALPHABET[0x0A]))
        parts = [*word[:start], word[start:]] if start < len(word) and start else list(word)
        for i in range(1, len(parts)):
            left, right = "".join(parts[:i]), parts[i]
            if left + right not in known:
                known.add(left + right)
                vocabulary.merges.append(f"{left} {right}")
                vocabulary.common.add(vocabulary.add(left + right, TokenType.NORMAL))
    vocabulary.bos = vocabulary.add("<|endoftext|>", TokenType.CONTROL)
    vocabulary.add("<|im_start|>", TokenType.CONTROL)
    vocabulary.eos = vocabulary.add("<|im_end|>", TokenType.CONTROL)
    for token in extra:
        vocabulary.add(token, TokenType.CONTROL)
    vocabulary.pad(size)
    return vocabulary


def _spm(size: int, extra: Sequence[str], *, newlines: bool) -> _Vocabulary:
    vocabulary = _Vocabulary("llama", ["<unk>", "<s>", "</s>"], [], eos=2, bos=1)
    vocabulary.types = [int(kind) for kind in (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL)]
    for byte in range(256):
        vocabulary.add(f"<0x{byte:02X}>", TokenType.BYTE)
    pieces = dict.fromkeys(["▁", *map(chr, range(0x21, 0x7F))])
    for word in WORDS:
        spelt = word.replace(" ", "▁")
        if "\n" not in spelt:
            pieces |= dict.fromkeys(spelt[:i] for i in range(2, len(spelt) + 1))
        elif newlines:
            pieces[spelt] = None
    vocabulary.scores = [0.0] * len(vocabulary.tokens)
    for rank, piece in enumerate(pieces):
        vocabulary.common.add(vocabulary.add(piece, TokenType.NORMAL))
        vocabulary.scores.append(0.0 if piece == "\n\n" else -float(rank))
    for token in extra:
        vocabulary.add(token, TokenType.CONTROL)
    vocabulary.pad(size)
    vocabulary.scores += [-1e6] * (size - len(vocabulary.scores))
    return vocabulary


def _transformer(
    seed: int, n_embd: int, n_layer: int, n_head: int, n_head_kv: int, *, biases: bool = False
) -> _Weights:
    weights = _Weights(np.random.default_rng(seed), n_embd)
    for i in range(n_layer):
        layer = f"blk.{i}"
        weights.norm(f"{layer}.attn_norm.weight")
        weights.attention(layer, n_head, n_head_kv)
        weights.feed_forward(layer, 2 * n_embd)
        if biases:
            for part, heads in (("q", n_head), ("k", n_head_kv), ("v", n_head_kv)):
                weights.put(
                    f"{layer}.attn_{part}.bias", weights.normal(n_embd // n_head * heads) / np.float32(5)
                )
    return weights


def _writer(
    path: Path, architecture: str, name: str, tokenizer: _Vocabulary, template: str | None, *, add_bos: bool
) -> GGUFWriter:
    writer = GGUFWriter(path, architecture)
    writer.add_name(name)
    writer.add_tokenizer_model(tokenizer.model)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    if tokenizer.merges:
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_merges(tokenizer.merges)
        writer.add_pad_token_id(tokenizer.bos)
    if tokenizer.scores:
        writer.add_token_scores(tokenizer.scores)
        writer.add_unk_token_id(0)
        writer.add_add_space_prefix(True)
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(tokenizer.eos)
    writer.add_add_bos_token(add_bos)
    if template is not None:
        writer.add_chat_template(template)
    return writer


def _shape(
    writer: GGUFWriter, n_ctx_train: int, n_embd: int, n_layer: int, n_head: int, n_head_kv: int | list[int]
) -> None:
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(2 * n_embd if n_head else 0)
    writer.add_head_count(n_head)
    writer.add_head_count_kv(n_head_kv)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(0)
    if n_head:
        writer.add_rope_freq_base(10000.0)
        writer.add_rope_dimension_count(n_embd // n_head)


def _finish(writer: GGUFWriter, weights: _Weights, metadata: Mapping[str, Value] | None, path: Path) -> Path:
    for key, value in (metadata or {}).items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, int) and key == "general.alignment":
            writer.add_custom_alignment(value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_array(key, value)
    for name, tensor in weights.tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


WRITERS: dict[str, Callable[..., Path]] = {
    "llama": write_llama,
    "qwen2": partial(write_llama, architecture="qwen2", add_bos=True),
    "other": write_other_vocab,
    "spm": write_spm,
    "spm-bytes": partial(write_spm, newlines=False),
    "mamba": write_mamba,
    "hybrid": write_hybrid,
    "plain": write_without_template,
}
