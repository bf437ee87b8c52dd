"""Speculative sampling: which proposed tokens another model accepts, and what it draws where it accepts none.

Arithmetic on distributions as the sampler chains leave them, a sparse set of candidates each; only where neither
top_k nor top_p nor min_p is set is that the whole vocabulary, and the numpy operations here are as long as that.
Decodes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from rsd_cli.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rsd_cli.engine.llama import Model

MAX_SIZE_DIFFERENCE, FIRST_COMPARED = 128, 5  # llama.cpp's, common/speculative.cpp


@dataclass(frozen=True)
class Chances:
    """A distribution over tokens: those in `ids` have the probabilities `p`, which sum to 1, all others none."""

    ids: NDArray[np.int32]
    p: NDArray[np.float64]

    @classmethod
    def from_logits(cls, ids: NDArray[np.int32], logits: NDArray[np.float32]) -> Chances:
        """The softmax; of damaged weights it may be NaN."""
        weights = np.exp(logits.astype(np.float64) - logits.max())
        return cls(ids.copy(), weights / weights.sum())

    def place(self, token: int) -> int | None:
        """Where a token stands, if it has a chance."""
        found = np.flatnonzero(self.ids == token)
        return int(found[0]) if len(found) else None

    def draw(self, uniform: float) -> int:
        """The place of the token that a uniform number in [0, 1) falls on."""
        below = np.cumsum(self.p)
        return min(int(np.searchsorted(below, uniform * below[-1], side="right")), len(self.ids) - 1)

    def beyond(self, other: Chances) -> Chances:
        """max(0, p - q), normalised; p itself where rounding leaves nothing of it."""
        rest = self.p.copy()
        _, own, theirs = np.intersect1d(self.ids, other.ids, assume_unique=True, return_indices=True)
        rest[own] = np.maximum(0.0, rest[own] - other.p[theirs])
        total = rest.sum()
        return Chances(self.ids, rest / total) if total > 0 else self


@dataclass(frozen=True)
class Guess:
    """A proposed token, and what it was drawn from; None where it was no draw: the likeliest, or known before."""

    token: int
    chances: Chances | None = None

    @property
    def chance(self) -> float:
        """How probable it was to be drawn; 1 where it was no draw."""
        if self.chances is None:
            return 1.0
        place = self.chances.place(self.token)
        return 0.0 if place is None else float(self.chances.p[place])


class Draws:
    """Draws tokens above temperature 0: freely, or so that a proposed token is used and the distribution kept.

    Speculative sampling (arXiv 2211.17192, algorithm 1; 2302.01318, algorithm 2): a token x that was drawn from q is
    accepted with probability min(1, p(x) / q(x)), else one is drawn from max(0, p - q), normalised. Either way the
    token is distributed as p. A guess that was no draw has q(x) = 1.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.chances: Chances | None = None  # what the last token was drawn from, or would have been
        self.guess: Guess | None = None  # what is proposed for the next one

    def __call__(self, ids: NDArray[np.int32], logits: NDArray[np.float32]) -> int:
        """The place of the token to take among the candidates."""
        self.chances = chances = Chances.from_logits(ids, logits)
        guess, uniform = self.guess, float(self._random.random())
        if guess is None:
            return chances.draw(uniform)
        proposed = guess.chances or Chances(np.array([guess.token], np.int32), np.ones(1))
        place = chances.place(guess.token)
        if place is not None and guess.chance > 0 and uniform * guess.chance < chances.p[place]:
            return place
        return chances.beyond(proposed).draw(float(self._random.random()))


def check_pair(draft: Model, target: Model) -> None:
    """Refuse models of which one can't propose tokens to the other, as llama.cpp does (common/speculative.cpp).

    Raises ModelError: one of them can't be cut back, or their vocabularies are not the same.
    """
    for model in (draft, target):
        if not model.can_cut:
            raise ModelError(
                f"{model.path.name} is a recurrent model, whose memory can't be cut back to an accepted token.",
                "Speculative decoding needs two transformers; choose another model or strategy.",
            )
    differing = vocabularies_differ(draft, target)
    if differing:
        raise ModelError(
            f"{draft.path.name} can't propose tokens to {target.path.name}: {differing}.",
            "Speculative decoding needs two models of one vocabulary; RSD does not (--strategy rsd).",
        )


@lru_cache(maxsize=1)  # every check of a run asks
def vocabularies_differ(draft: Model, target: Model) -> str | None:
    """The first thing in which two vocabularies differ, as half a sentence; padding at the end does not count."""
    if draft.path == target.path:
        return None
    facts = {
        "types of vocabulary": (draft.vocab_type, target.vocab_type),
        "settings for a token at the beginning": (draft.adds_bos, target.adds_bos),
        "settings for a token at the end": (draft.adds_eos, target.adds_eos),
        "beginning-of-text tokens": (draft.bos, target.bos),
        "end-of-text tokens": (draft.eos, target.eos),
    }
    for name, (own, other) in facts.items():
        if own != other:
            return f"their {name} differ ({own} and {other})"
    if abs(draft.n_vocab - target.n_vocab) > MAX_SIZE_DIFFERENCE:
        return f"their vocabularies have {draft.n_vocab:,} and {target.n_vocab:,} tokens"
    pairs = zip(draft.vocabulary(), target.vocabulary(), strict=False)
    for token, (text, other_text) in enumerate(pairs):
        if text != other_text and token >= FIRST_COMPARED:
            return f"token {token} is {_shown(text)} in the one and {_shown(other_text)} in the other"
    return None


def _shown(text: bytes) -> str:
    return repr(text.decode("utf-8", "replace"))
