"""What `rsd bench` compares with: bare llama_decode loops, and the binding's high-level class.

The floor does as little as can be done between two llama_decode calls: no seats, no jobs, no text. Its loop and its
batch are its own, on the engine's model, context and sampler, since a floor must not stand on what it measures.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rsd_cli.engine.context import ABORTED, ContextOptions
from rsd_cli.engine.llama import DecodeAborted, Model
from rsd_cli.engine.sampling import Sampler, Sampling
from rsd_cli.engine.seats import Engine

# isort: split
import llama_cpp.llama_cpp as C  # noqa: N812 - behind our own module, which prepares the environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Floor:
    """A bare loop over the context of an engine whose seats are free."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pointer = engine.context.pointer
        self._batch = C.llama_batch_init(engine.context.n_batch, 0, 1)

    def read(self, prompt: Sequence[int], n_seats: int, position: int = 0) -> float:
        """Seconds to feed the prompt to each seat, one after the other, behind what is there up to `position`."""
        started = time.perf_counter()
        for seat in range(n_seats):
            for first in range(0, len(prompt), self._engine.context.n_batch):
                part = prompt[first : first + self._engine.context.n_batch]
                self._feed(seat, position + first, part)
        return time.perf_counter() - started

    def write(self, n_tokens: int, n_seats: int, position: int) -> float:
        """Seconds to decode `n_tokens` more in every seat behind a prompt of `position` tokens, greedily."""
        sampler = Sampler(self._engine.model, Sampling(), 0, [])
        batch = self._batch
        tokens = [self._engine.model.eos] * n_seats
        started = time.perf_counter()
        for i in range(n_tokens):
            batch.n_tokens = n_seats
            for row, token in enumerate(tokens):
                self._set(row, token, position + i, row)
            self._decode()
            tokens = [sampler.draw(self._engine.context, row) for row in range(n_seats)]
        seconds = time.perf_counter() - started
        sampler.close()
        return seconds

    def clear(self, n_seats: int) -> None:
        """Empty the seats again."""
        for seat in range(n_seats):
            self._engine.context.cut(seat, 0)

    def close(self) -> None:
        """Free the batch."""
        C.llama_batch_free(self._batch)

    def _feed(self, seat: int, first: int, tokens: Sequence[int]) -> None:
        self._batch.n_tokens = len(tokens)
        for row, token in enumerate(tokens):
            self._set(row, token, first + row, seat)
            self._batch.logits[row] = row == len(tokens) - 1
        self._decode()

    def _set(self, row: int, token: int, position: int, seat: int) -> None:
        batch = self._batch
        batch.token[row], batch.pos[row], batch.n_seq_id[row], batch.logits[row] = token, position, 1, 1
        batch.seq_id[row][0] = seat

    def _decode(self) -> None:
        code = C.llama_decode(self._pointer, self._batch)
        if code == ABORTED:  # through the engine's context
            raise DecodeAborted
        if code:
            raise RuntimeError(f"llama_decode returned {code}")


class HighLevel:
    """llama-cpp-python's `Llama.create_completion`, streaming, as most programs use it; `gpu_layers` -1 for all."""

    def __init__(self, path: Path, n_ctx: int, threads: int, gpu_layers: int) -> None:
        from llama_cpp import Llama

        self._llama = Llama(
            str(path),
            n_ctx=n_ctx,
            n_threads=threads,
            n_threads_batch=threads,
            n_gpu_layers=gpu_layers,
            verbose=False,
        )

    def write(self, prompt: Sequence[int], n_tokens: int, aborted: Callable[[], bool]) -> float:
        """Tokens per second behind the first one, of at most `n_tokens`; raises DecodeAborted between two of them."""
        self._llama.n_tokens = 0  # what reset() does: read the prompt again
        chunks = self._llama.create_completion(
            list(prompt), max_tokens=n_tokens, temperature=0.0, repeat_penalty=1.0, stream=True
        )
        times = []
        for _ in chunks:
            times.append(time.perf_counter())
            if aborted():
                raise DecodeAborted
        *times, _finish = times
        return (len(times) - 1) / (times[-1] - times[0])

    def close(self) -> None:
        """Free the model."""
        self._llama.close()


def first_token_seconds(path: Path, prompt: Sequence[int], n_ctx: int) -> float:
    """Load a model, read a prompt and draw one token, with nothing around it; imports are not counted."""
    started = time.perf_counter()
    engine = Engine(Model(path), ContextOptions(n_ctx=n_ctx))
    floor = Floor(engine)
    floor.read(prompt, 1)
    Sampler(engine.model, Sampling(), 0, []).draw(engine.context, len(prompt) - 1)
    return time.perf_counter() - started


if __name__ == "__main__":  # `rsd bench` starts this in a process of its own
    tokens = [int(token) for token in sys.argv[3].split(",")]
    sys.stdout.write(f"{first_token_seconds(Path(sys.argv[1]), tokens, int(sys.argv[2]))}\n")
