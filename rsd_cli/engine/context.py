"""A model's KV memory in streams, the batch that feeds it, and what a decode gives: logits and hidden states."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rsd_cli.engine.cores import usable_cores
from rsd_cli.engine.jobs import MAX_SEATS
from rsd_cli.engine.llama import C, DecodeAborted, listen, reason
from rsd_cli.errors import EngineError, ResourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rsd_cli.engine.llama import Model

KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8}  # ggml_type
QUANTIZED = frozenset({"q4_0", "q8_0"})  # llama.cpp has such memory with flash attention only
# llama.cpp's sums depend on the number of rows: fours are computed together, what is left of them, and fewer than
# eight, in another way.
FOUR, EVEN = 4, 8
_NO_SLOT, ABORTED = 1, 2  # positive return codes of llama_decode


def _never() -> bool:
    return False


@dataclass(frozen=True)
class ContextOptions:
    """Shape of a context. `n_ctx` counts the cells of each seat; `threads` 0 means one per usable core.

    At most `n_streams` seats are decoded together and hold memory in the context; 0 means all.
    `forgets`: a seat's memory is cleared between trajectories, instead of serving one that begins alike.
    `exact`: a text's outputs do not depend on the decodes that it was cut into, nor on what these had beside it, to
    the bit; on a CPU, for memory that can be cut. What is read is filled up to eights for that, so a text ends eight
    cells earlier. What is written has a row in each of some streams where their number is a multiple of four, and at
    least eight; with fewer, a token costs as much as eight.
    """

    n_ctx: int = 4096
    n_seats: int = 1
    n_batch: int = 512
    threads: int = 0
    kv_type: str = "f16"
    flash_attention: bool | None = None
    forgets: bool = False
    n_streams: int = 0
    exact: bool = False


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
        self.n_streams = options.n_seats if all_of_them else options.n_streams
        self.exact = options.exact and model.can_cut
        self.n_batch = max(options.n_batch, self.n_streams)  # every stream may write
        if self.exact:  # and in eights have all its guesses checked at once
            self.n_batch = max(options.n_batch // EVEN, 3 * self.n_streams) * EVEN
        params = self._params(options)
        asked = self.aborted = aborted or _never
        self._abort = C.ggml_abort_callback(lambda _data: bool(asked()))
        listen()
        self.pointer: Any = C.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise ResourceError(
                f"llama.cpp could not make a context of {options.n_ctx:,} tokens x {self.n_streams} "
                f"for {model.path.name}{reason()}.",
                self._way_out(options),
            )
        C.llama_set_abort_callback(self.pointer, self._abort, None)
        self._memory: Any = C.llama_get_memory(self.pointer)
        self.n_ctx = int(C.llama_n_ctx_seq(self.pointer)) - (
            EVEN if self.exact else 0
        )  # with room to fill it up
        self._batch = C.llama_batch_init(self.n_batch, 0, 1)
        self._view_batch(self.n_batch)

    @staticmethod
    def _way_out(options: ContextOptions) -> str:
        if options.kv_type in QUANTIZED:
            return "Try --kv-type f16, or a smaller --ctx."
        return "Try a smaller --ctx" + ("." if options.flash_attention is False else ", or --kv-type q8_0.")

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
        if (
            options.flash_attention is not None or self.exact
        ):  # its rounding depends on the number of rows as well
            params.flash_attn_type = int(bool(options.flash_attention) and not self.exact)
        if self.exact:
            params.op_offload = False  # or a GPU computes the large decodes of layers on the CPU
        return params

    def _view_batch(self, n: int) -> None:
        view = np.ctypeslib.as_array
        self._token = view(self._batch.token, (n,))
        self._position = view(self._batch.pos, (n,))
        self._output = view(self._batch.logits, (n,))
        view(self._batch.n_seq_id, (n,))[:] = 1

    def decode(self, rows: Sequence[Row], *, hidden: bool = False, fill: int = 1) -> list[int]:
        """One llama_decode of all rows; gives each row's last batch index, for `Sampler.draw` and `logit`.

        Rows are filled up to multiples of `fill` tokens, which leave no trace. With `hidden` the hidden states can be
        read too; llama.cpp then computes an output for every token, so such rows should be one token long.

        Raises DecodeAborted, ResourceError (no room) and EngineError (anything else).
        """
        last, self._batch.n_tokens = [], 0
        for row in rows:
            last.append(self._batch.n_tokens + len(row.tokens) - 1)
            self._add(row, fill)
        C.llama_set_embeddings(self.pointer, hidden)
        self._check(C.llama_decode(self.pointer, self._batch), self._batch.n_tokens)
        for row in rows:
            if len(row.tokens) % fill:
                self.cut(row.stream, row.position + len(row.tokens))
        return last

    def _add(self, row: Row, fill: int) -> None:
        """Put a row into the batch, filled up; its outputs, if any, are then a multiple of `fill` as well."""
        start, n_more = self._batch.n_tokens, -len(row.tokens) % fill
        end = start + len(row.tokens) + n_more
        self._token[start:end] = [*row.tokens, *[0] * n_more]
        self._position[start:end] = range(row.position, row.position + end - start)
        self._output[start:end] = 0
        n_output = row.output + n_more if row.output else 0
        self._output[end - n_output - -n_output % fill : end] = 1
        for i in range(start, end):
            self._batch.seq_id[i][0] = row.stream
        self._batch.n_tokens = end

    def _check(self, code: int, n: int) -> None:
        if code == 0:
            return
        if code == ABORTED:
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
        """Drop all cells from position n on; false if this kind of memory can't, or is freed already."""
        return bool(self.pointer) and bool(C.llama_memory_seq_rm(self._memory, stream, n, -1))

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
