"""llama.cpp through its C interface: the library and what it computes on, and models. Prepares the environment.

`context.py` and `sampling.py` have what a model is used with; besides these only `quantize.py` and `floor.py`, which
`rsd bench` compares with, call into it. They turn return codes into exceptions, own the lifetime of what they make,
and know nothing of seats, steps or prompts.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsd_cli.engine import amx
from rsd_cli.errors import EngineError, ModelError, ResourceError, RSDError

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
import llama_cpp.llama_cpp as _bindings  # noqa: E402 - after the environment

if _package:
    del sys.modules["llama_cpp"]
C = _bindings  # also for the other modules here: importing it again would import the whole package

if TYPE_CHECKING:
    from collections.abc import Callable

ANCHOR = "\x01"  # a byte token that merges with nothing, so that SentencePiece adds no space behind it
NO_MEMORY = ("Cannot allocate memory", "failed to allocate", "unable to allocate", "bad_alloc")
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


@functools.cache
def amx_works() -> bool:
    """Whether the kernels for AMX of this build, if it has any, do what they should on this machine.

    Where they don't, models are loaded without: llama.cpp has one switch for all layouts of weights of its own, so
    other fast kernels are lost as well.
    """
    if amx.FLAG not in C.llama_print_system_info().decode():
        return True
    return amx.survives(lambda: amx.multiplies(_ggml("ggml-base"), _ggml("ggml-cpu")))


class DecodeAborted(Exception):  # noqa: N818 - a request was fulfilled, nothing went wrong
    """A decode was stopped through the context's abort check."""


def _not_loaded(path: Path) -> RSDError:
    """What is told of a model that can't be loaded; where memory is short its file is not to blame."""
    why = reason()
    message = f"llama.cpp could not load {path}{why}."
    if any(words in why for words in NO_MEMORY):
        return ResourceError(
            message, "Free memory, raise the limit (`ulimit -v`), or choose a smaller model."
        )
    return ModelError(message, "Check the file with `rsd models verify`.")


class Model:
    """Weights, vocabulary and metadata of one GGUF file. `gpu_layers` -1 means all that the build can offload."""

    def __init__(self, path: Path, gpu_layers: int = -1, aborted: Callable[[], bool] | None = None) -> None:
        self.path = path
        params = C.llama_model_default_params()
        goes_on = C.llama_progress_callback(lambda _progress, _data: not (aborted and aborted()))
        params.progress_callback = goes_on
        params.n_gpu_layers = gpu_layers if can_offload() else 0
        params.use_extra_bufts = amx_works()
        listen()
        self.pointer: Any = C.llama_model_load_from_file(os.fsencode(path), params)
        if not self.pointer and aborted and aborted():
            raise DecodeAborted
        if not self.pointer:
            raise _not_loaded(path)
        self._vocab: Any = C.llama_model_get_vocab(self.pointer)
        self.n_vocab = int(C.llama_vocab_n_tokens(self._vocab))
        self.n_embd = int(C.llama_model_n_embd(self.pointer))
        self.n_ctx_train = int(C.llama_model_n_ctx_train(self.pointer))
        self.parameters = int(C.llama_model_n_params(self.pointer))
        self.bos = int(C.llama_vocab_bos(self._vocab))
        self.eos = int(C.llama_vocab_eos(self._vocab))
        self.adds_bos = bool(C.llama_vocab_get_add_bos(self._vocab))
        self.adds_eos = bool(C.llama_vocab_get_add_eos(self._vocab))
        self.vocab_type = int(C.llama_vocab_type(self._vocab))
        # Measured: LFM2 gives other logits while hidden states are asked for.
        self.states_spoil_logits = self._architecture().startswith("lfm2")
        # Recurrent state can't be cut: seats of such a model go back through snapshots.
        self.can_cut = not (C.llama_model_is_recurrent(self.pointer) or C.llama_model_is_hybrid(self.pointer))
        spm = self.vocab_type == 1
        self._anchor = self._tokenize(ANCHOR, special=False) if spm else []
        self._pieces: dict[int, bytes] = {}

    def _architecture(self) -> str:
        """What the file calls its kind of model."""
        buffer = ctypes.create_string_buffer(64)
        n = C.llama_model_meta_val_str(self.pointer, b"general.architecture", buffer, len(buffer))
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
        text = C.llama_model_chat_template(self.pointer, None)
        if text is None:
            return None
        try:
            return str(text.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ModelError(f"The chat template of {self.path.name} is not UTF-8.") from error

    def close(self) -> None:
        """Free the weights; contexts must be closed before."""
        if self.pointer:
            C.llama_model_free(self.pointer)
            self.pointer = None


@dataclass(frozen=True)
class Device:
    """A device that ggml can compute on; memory in bytes, None where nobody tells how much is free."""

    name: str
    description: str
    free: int | None
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
        "llama_cpp_commit": base.ggml_commit().decode(),
        "ggml": base.ggml_version().decode(),
        "features": C.llama_print_system_info().decode().strip(" |"),
    }
