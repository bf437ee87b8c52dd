"""How a token is drawn: llama.cpp's own sampler chains, watched where somebody wants the probabilities."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rsd_cli.engine.jobs import Drawn
from rsd_cli.engine.llama import C

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rsd_cli.engine.context import Context
    from rsd_cli.engine.llama import Model

    Choice = Callable[[NDArray[np.int32], NDArray[np.float32]], int]

CANDIDATES = 64  # how many of the best tokens a confidence is normalised over
PENALTY_WINDOW = 64


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 takes the most probable one. `top_k` 0 and `top_p` 1 switch off.

    Where somebody watches, a `top_k` of 0 means the best `CANDIDATES`.
    """

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0

    @property
    def is_alike_when_watched(self) -> bool:
        """Whether the same seed draws the same tokens when somebody watches."""
        return self.top_k > 0 or self.temperature <= 0


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
