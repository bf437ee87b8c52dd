"""llama.cpp through its C interface: models, contexts, native samplers.

Besides it only `floor.py`, which `rsd bench` compares with, calls llama_cpp. It turns return codes into
exceptions, owns the lifetime of what it makes, and knows nothing of seats, steps or prompts.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import sys
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsd_cli.engine.cores import usable_cores
from rsd_cli.engine.jobs import Drawn
from rsd_cli.errors import EngineError, ModelError, ResourceError, UsageError

# Spinning barriers cost a hundredfold beside another busy process; the user's own setting wins. libgomp reads
# this once, when it is loaded, so it comes before llama_cpp.
if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
    os.environ |= {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an abort would fork a debugger from PATH

# The package's own __init__ imports its high-level class and all that this needs; the bindings do without, and
# the first token comes 65 ms earlier. Whoever wants the package itself can still import it afterwards.
_package = importlib.util.find_spec("llama_cpp") if "llama_cpp" not in sys.modules else None
if _package:
    sys.modules["llama_cpp"] = importlib.util.module_from_spec(_package)
import llama_cpp.llama_cpp as C  # noqa: E402, N812 - after the environment; C is what it is
import numpy as np  # noqa: E402 - comes with llama_cpp

if _package:
    del sys.modules["llama_cpp"]

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Choice = Callable[[NDArray[np.int32], NDArray[np.float32]], int]

MAX_SEATS = 256
KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8}  # ggml_type
CANDIDATES = 64  # how many of the best tokens a confidence is normalised over
PENALTY_WINDOW = 64
ANCHOR = "\x01"  # a byte token that merges with nothing, so that SentencePiece adds no space behind it
_NO_SLOT, _ABORTED = 1, 2  # positive return codes of llama_decode
_LOG_ERROR, _LOG_CONTINUED = 4, 5  # ggml.h; the binding's own table is off by one

_errors: deque[str] = deque(maxlen=8)
_last_level = [0]


def _keep_errors(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
    if level != _LOG_CONTINUED:
        _last_level[0] = level
    if _last_level[0] == _LOG_ERROR:
        _errors.append(text.decode("utf-8", "replace").strip())


_log_callback = C.llama_log_callback(_keep_errors)  # llama.cpp keeps only a pointer to it
C.llama_backend_init()


def listen() -> None:
    """Keep what llama.cpp complains about for `reason`, and the rest off the screen."""
    _errors.clear()
    C.llama_log_set(_log_callback, ctypes.c_void_p(0))  # importing the package itself replaces it


def reason() -> str:
    """What llama.cpp last complained about, as half a sentence."""
    lines = [line for line in _errors if line]
    _errors.clear()
    return f": {'; '.join(lines[-2:])}" if lines else ""


def can_offload() -> bool:
    """Whether this build of llama.cpp can compute on a GPU."""
    return bool(C.llama_supports_gpu_offload())


class DecodeAborted(Exception):  # noqa: N818 - a request was fulfilled, nothing went wrong
    """A decode was stopped through the context's abort check."""


class Model:
    """Weights, vocabulary and metadata of one GGUF file. `gpu_layers` -1 means all that the build can offload."""

    def __init__(self, path: Path, gpu_layers: int = -1, aborted: Callable[[], bool] | None = None) -> None:
        self.path = path
        params = C.llama_model_default_params()
        goes_on = C.llama_progress_callback(lambda _progress, _data: not (aborted and aborted()))
        params.progress_callback = goes_on
        params.n_gpu_layers = gpu_layers if can_offload() else 0
        listen()
        self._model: Any = C.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model and aborted and aborted():
            raise DecodeAborted
        if not self._model:
            raise ModelError(
                f"llama.cpp could not load {path}{reason()}.", "Check the file with `rsd models verify`."
            )
        self._vocab: Any = C.llama_model_get_vocab(self._model)
        self.n_vocab = int(C.llama_vocab_n_tokens(self._vocab))
        self.n_embd = int(C.llama_model_n_embd(self._model))
        self.n_ctx_train = int(C.llama_model_n_ctx_train(self._model))
        self.parameters = int(C.llama_model_n_params(self._model))
        self.bos = int(C.llama_vocab_bos(self._vocab))
        self.eos = int(C.llama_vocab_eos(self._vocab))
        self.adds_bos = bool(C.llama_vocab_get_add_bos(self._vocab))
        self.adds_eos = bool(C.llama_vocab_get_add_eos(self._vocab))
        self.vocab_type = int(C.llama_vocab_type(self._vocab))
        # Recurrent state can't be cut: seats of such a model go back through snapshots.
        # Measured: LFM2 gives other logits while hidden states are asked for.
        self.states_spoil_logits = self._describes("general.architecture").startswith("lfm2")
        self.can_cut = not (C.llama_model_is_recurrent(self._model) or C.llama_model_is_hybrid(self._model))
        spm = self.vocab_type == 1
        self._anchor = self._tokenize(ANCHOR, special=False) if spm else []
        self._pieces: dict[int, bytes] = {}

    def _describes(self, key: str) -> str:
        """A value of the file's metadata, as text."""
        buffer = ctypes.create_string_buffer(64)
        n = C.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if n >= 0 else ""

    def tokenize(self, text: str, *, special: bool = False, starts: bool = False) -> list[int]:
        """Token ids of a fragment of text; control tokens are parsed only in scaffolding (`special`).

        A fragment that `starts` the whole text gets the space that SentencePiece puts before it.
        """
        if not text or not self._anchor or starts:
            return self._tokenize(text, special=special)
        return self._tokenize(ANCHOR + text, special=special)[len(self._anchor) :]

    def _tokenize(self, text: str, *, special: bool) -> list[int]:
        data = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode()
        ids = (ctypes.c_int32 * (len(data) + 2))()
        n = C.llama_tokenize(self._vocab, data, len(data), ids, len(ids), False, special)
        if n < 0:
            raise EngineError(f"llama.cpp could not tokenize {len(data):,} bytes of text.")
        return ids[:n]

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; control tokens stand for none."""
        if token not in self._pieces:
            self._pieces[token] = self._piece(token, special=False)
        return self._pieces[token]

    def _piece(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        n = C.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = C.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[:n]

    def vocabulary(self) -> list[bytes]:
        """How each token is written in the file, for comparing models once; not what it stands for in a text."""
        text, vocab = C.llama_vocab_get_text, self._vocab
        return [text(vocab, token) for token in range(self.n_vocab)]

    def special_text(self, token: int) -> str:
        """How a control token such as BOS is written in a chat template; empty if there is none."""
        return self._piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def ends_generation(self, token: int) -> bool:
        """Whether the token ends a turn or the text (llama_vocab_is_eog)."""
        return bool(C.llama_vocab_is_eog(self._vocab, token))

    def chat_template(self) -> str | None:
        """The Jinja source of the model's own chat template."""
        text = C.llama_model_chat_template(self._model, None)
        if text is None:
            return None
        try:
            return str(text.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ModelError(f"The chat template of {self.path.name} is not UTF-8.") from error

    def close(self) -> None:
        """Free the weights; contexts must be closed before."""
        if self._model:
            C.llama_model_free(self._model)
            self._model = None


@dataclass(frozen=True)
class Device:
    """A device that ggml can compute on; memory in bytes."""

    name: str
    description: str
    free: int
    total: int


def devices() -> list[Device]:
    """All devices of this build, the CPU included."""
    library = _ggml("ggml")
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    return [
        _device(_ggml("ggml-base"), library.ggml_backend_dev_get(ctypes.c_size_t(i)))
        for i in range(library.ggml_backend_dev_count())
    ]


def _device(library: Any, pointer: int) -> Device:
    device, free, total = ctypes.c_void_p(pointer), ctypes.c_size_t(), ctypes.c_size_t()
    library.ggml_backend_dev_name.restype = library.ggml_backend_dev_description.restype = ctypes.c_char_p
    library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    name, description = library.ggml_backend_dev_name(device), library.ggml_backend_dev_description(device)
    return Device(name.decode(), description.decode("utf-8", "replace").strip(), free.value, total.value)


def _ggml(name: str) -> Any:
    """A handle on a library that llama_cpp has loaded already."""
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    directory = Path(C.__file__).parent / "lib"
    return ctypes.CDLL(str(next(directory.glob(f"*{name}{suffix}*"))))


def build() -> dict[str, str]:
    """The llama.cpp that the package carries: commit, ggml version, CPU and backend features."""
    base = _ggml("ggml-base")
    base.ggml_commit.restype = base.ggml_version.restype = ctypes.c_char_p
    return {
        "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
        "llama_cpp_commit": base.ggml_commit().decode(),
        "ggml": base.ggml_version().decode(),
        "features": C.llama_print_system_info().decode().strip(" |"),
        "gpu_offload": "yes" if C.llama_supports_gpu_offload() else "no",
    }


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 takes the most probable one. `top_k` 0 and `top_p` 1 switch off."""

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0


def _rows(candidates: Any) -> NDArray[np.void]:
    """A view of a llama_token_data_array, valid while a sampler is applied."""
    pointer = ctypes.cast(candidates.data, ctypes.POINTER(C.llama_token_data))
    return np.ctypeslib.as_array(pointer, (candidates.size,))


class Sampler:
    """One native sampler chain. With `watch` it also knows the probability of each drawn token.

    That probability is normalised over the best `CANDIDATES` (or top_k) tokens before temperature, so that
    nothing here is proportional to the vocabulary. Above temperature 0 `choose` may draw in llama.cpp's place: it
    gets the ids and logits of the candidates that the chain has left and gives the place of one of them.
    """

    def __init__(
        self,
        model: Model,
        sampling: Sampling,
        seed: int,
        history: Sequence[int],
        *,
        watch: bool = False,
        choose: Choice | None = None,
    ) -> None:
        self._chain: Any = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        self._own: list[Any] = []  # llama.cpp keeps only pointers to samplers of ours
        self._best: NDArray[np.void] | None = None
        greedy = sampling.temperature <= 0
        if sampling.repeat_penalty != 1.0:
            penalties = C.llama_sampler_init_penalties
            self._add(penalties(model.n_vocab, PENALTY_WINDOW, sampling.repeat_penalty, 0.0, 0.0))
        top_k = 0 if greedy else sampling.top_k
        if watch or top_k > 0:
            self._add(C.llama_sampler_init_top_k(top_k or CANDIDATES))
        if watch:
            self._add_own(self._look)
        if greedy:
            self._add(C.llama_sampler_init_greedy())
        else:
            self._add(C.llama_sampler_init_top_p(sampling.top_p, 1))
            self._add(C.llama_sampler_init_min_p(sampling.min_p, 1))
            self._add(C.llama_sampler_init_temp(sampling.temperature))
            if choose:
                self._add_own(partial(self._select, choose))
            else:
                self._add(C.llama_sampler_init_dist(seed))
        for token in history[-PENALTY_WINDOW:] if sampling.repeat_penalty != 1.0 else ():
            C.llama_sampler_accept(self._chain, token)

    def _add(self, sampler: Any) -> None:
        C.llama_sampler_chain_add(self._chain, sampler)

    def _add_own(self, apply: Callable[[Any], None]) -> None:
        """Put a sampler of our own into the chain."""

        def called(_sampler: Any, candidates: Any) -> None:
            apply(candidates.contents)

        interface = C.llama_sampler_i(apply=C.llama_sampler_i_apply(called))
        self._own.append(interface)
        self._add(C.llama_sampler_init(ctypes.byref(interface), None))

    def _look(self, candidates: Any) -> None:
        self._best = _rows(candidates).copy()

    @staticmethod
    def _select(choose: Choice, candidates: Any) -> None:
        candidates.selected = 0  # llama.cpp aborts where none is, whatever happens below
        rows = _rows(candidates)
        candidates.selected = choose(rows["id"], rows["logit"])

    def drawn(self, token: int) -> Drawn:
        """The watched probability of the token that was just drawn, and the entropy beside it."""
        if self._best is None:
            raise ValueError("this sampler does not watch")
        logits = self._best["logit"].astype(np.float64)
        logprobs = logits - np.logaddexp.reduce(logits)
        entropy = -float(np.exp(logprobs) @ logprobs)
        return Drawn(float(logprobs[self._best["id"] == token][0]), entropy)

    def draw(self, context: Context, row: int) -> int:
        """Sample from an output row of the context's last decode."""
        return int(C.llama_sampler_sample(self._chain, context.pointer, row))

    def close(self) -> None:
        """Free the chain with all that is in it."""
        if self._chain:
            C.llama_sampler_free(self._chain)
            self._chain = None


@dataclass(frozen=True)
class ContextOptions:
    """Shape of a context. `n_ctx` counts the cells of each seat; `threads` 0 means one per usable core.

    At most `n_streams` seats are decoded together and hold memory in the context; 0 means all.
    `forgets`: a seat's memory is cleared between trajectories, instead of serving one that begins alike.
    """

    n_ctx: int = 4096
    n_seats: int = 1
    n_batch: int = 512
    threads: int = 0
    kv_type: str = "f16"
    flash_attention: bool | None = None
    forgets: bool = False
    n_streams: int = 0


@dataclass(frozen=True)
class Row:
    """Tokens of one stream for one decode; of the last `output` of them the output is wanted."""

    stream: int
    position: int
    tokens: Sequence[int]
    output: int


class Context:
    """KV memory of one model in separate streams, each with one sequence, and the batch that feeds it."""

    def __init__(
        self, model: Model, options: ContextOptions, aborted: Callable[[], bool] | None = None
    ) -> None:
        self.model = model
        all_of_them = not options.n_streams or not model.can_cut  # what can't be cut keeps its stream
        self.n_streams = options.n_seats if all_of_them else min(options.n_streams, options.n_seats)
        self.n_batch = max(options.n_batch, self.n_streams)  # every stream may write
        params = self._params(options)
        self._abort = C.ggml_abort_callback(lambda _data: bool(aborted and aborted()))
        _errors.clear()
        self.pointer: Any = C.llama_init_from_model(model._model, params)
        if not self.pointer:
            raise ResourceError(
                f"llama.cpp could not make a context of {options.n_ctx:,} tokens x {self.n_streams} "
                f"for {model.path.name}{reason()}.",
                "Try a smaller --ctx, or --kv-type q8_0.",
            )
        C.llama_set_abort_callback(self.pointer, self._abort, None)
        self._memory: Any = C.llama_get_memory(self.pointer)
        self.n_ctx = int(C.llama_n_ctx_seq(self.pointer))
        self._batch = C.llama_batch_init(self.n_batch, 0, 1)
        self._view_batch(self.n_batch)

    def _params(self, options: ContextOptions) -> Any:
        if not 1 <= self.n_streams <= MAX_SEATS:
            raise UsageError(f"{self.n_streams} seats are asked for, possible are 1 to {MAX_SEATS}.")
        params = C.llama_context_default_params()
        params.n_ctx = options.n_ctx * self.n_streams
        params.n_seq_max = self.n_streams
        params.n_batch = params.n_ubatch = self.n_batch
        params.n_threads = params.n_threads_batch = options.threads or usable_cores()
        params.type_k = params.type_v = KV_TYPES[options.kv_type]
        params.kv_unified = False  # a seat's text must not depend on its neighbours
        params.swa_full = True  # a cut must find the old cells of sliding windows
        params.no_perf = True
        if options.flash_attention is not None:
            params.flash_attn_type = int(options.flash_attention)
        return params

    def _view_batch(self, n: int) -> None:
        view = np.ctypeslib.as_array
        self._token = view(self._batch.token, (n,))
        self._position = view(self._batch.pos, (n,))
        self._output = view(self._batch.logits, (n,))
        view(self._batch.n_seq_id, (n,))[:] = 1

    def decode(self, rows: Sequence[Row], *, hidden: bool = False) -> list[int]:
        """One llama_decode of all rows; gives each row's last batch index, for `Sampler.draw` and `logit`.

        With `hidden` the hidden states can be read too; llama.cpp then computes an output for every token, so
        such rows should be one token long.

        Raises DecodeAborted, ResourceError (no room) and EngineError (anything else).
        """
        n, last = 0, []
        for row in rows:
            end = n + len(row.tokens)
            self._token[n:end] = row.tokens
            self._position[n:end] = range(row.position, row.position + len(row.tokens))
            self._output[n:end] = 0
            self._output[end - row.output : end] = 1
            for i in range(n, end):
                self._batch.seq_id[i][0] = row.stream
            last.append(end - 1)
            n = end
        self._batch.n_tokens = n
        C.llama_set_embeddings(self.pointer, hidden)
        self._check(C.llama_decode(self.pointer, self._batch), n)
        return last

    def _check(self, code: int, n: int) -> None:
        if code == 0:
            return
        if code == _ABORTED:
            raise DecodeAborted
        if code in (_NO_SLOT, -2):
            raise ResourceError(
                f"llama.cpp found no memory for {n} more tokens{reason()}.", "Try a smaller --ctx."
            )
        raise EngineError(f"llama_decode of {n} tokens failed with code {code}{reason()}.")

    def logit(self, row: int, token: int) -> float:
        """One logit of an output row; of damaged weights it may be NaN or infinite."""
        return float(C.llama_get_logits_ith(self.pointer, row)[token])

    def logprob(self, row: int, token: int) -> float:
        """The log-probability of a token over the whole vocabulary, at temperature 1; once per judged token."""
        logits = self.logits(row)
        highest = logits.max()
        return float(logits[token] - highest - np.log(np.exp(logits - highest).sum(dtype=np.float64)))

    def hidden(self, row: int) -> NDArray[np.float32]:
        """The state behind the final norm (n_embd values) of an output row of a decode with `hidden`."""
        values = C.llama_get_embeddings_ith(self.pointer, row)
        state: NDArray[np.float32] = np.ctypeslib.as_array(values, (self.model.n_embd,)).copy()
        return state

    def logits(self, row: int) -> NDArray[np.float32]:
        """A view of all logits of an output row, valid until the next decode; never for a sampled token."""
        return np.ctypeslib.as_array(C.llama_get_logits_ith(self.pointer, row), (self.model.n_vocab,))

    def cut(self, stream: int, n: int) -> bool:
        """Drop all cells from position n on; false if this kind of memory can't."""
        return bool(C.llama_memory_seq_rm(self._memory, stream, n, -1))

    def snapshot(self, stream: int) -> bytes:
        """The state of one stream, for `restore`."""
        size = C.llama_state_seq_get_size_ext(self.pointer, stream, 0)
        data = (ctypes.c_uint8 * size)()
        return bytes(memoryview(data)[: C.llama_state_seq_get_data_ext(self.pointer, data, size, stream, 0)])

    def restore(self, stream: int, state: bytes) -> None:
        """Put a stream back to a snapshot, its own or another's."""
        data = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        self.cut(stream, 0)
        if not C.llama_state_seq_set_data_ext(self.pointer, data, len(state), stream, 0):
            raise EngineError(f"llama.cpp could not restore a snapshot of {len(state):,} bytes{reason()}.")

    def close(self) -> None:
        """Free the KV memory and the batch."""
        if self.pointer:
            C.llama_batch_free(self._batch)
            C.llama_free(self.pointer)
            self.pointer = None
