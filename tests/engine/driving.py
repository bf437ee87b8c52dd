"""Runs an engine's jobs to their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rsd_cli.engine.jobs import Fed, Observed, Read, Sampled, Write, Written, whole
from rsd_cli.engine.sampling import Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.engine.jobs import Update
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.seats import Engine

NO_END = {"\n\n": -50.0, ".\n\n": -50.0, "?\n\n": -50.0, ":\n\n": -50.0, "}\n\n": -50.0, "<eos>": -50.0}


def job(context: Sequence[int], **options: Any) -> Write:
    """A greedy writing job of at most 40 tokens."""
    sampling = Sampling(**options.pop("sampling", {}))
    settings: dict[str, Any] = {"seed": 0, "separator": "\n\n", "max_tokens": 40} | options
    return Write(context, sampling, **settings)


def finish(engine: Engine) -> list[Update]:
    """Step until no seat has a job."""
    updates: list[Update] = []
    while engine.busy:
        updates += whole(engine.step())
    return updates


def write(engine: Engine, context: Sequence[int], **options: Any) -> Written:
    engine.submit(0, job(context, **options))
    last = finish(engine)[-1]
    assert isinstance(last, Written)
    return last


def logits_after(engine: Engine, context: Sequence[int], boundary: int | None = None) -> np.ndarray:
    """All logits behind a context, as an engine's reading job sees them."""
    every = tuple(range(engine.model.n_vocab))
    engine.submit(0, Read(context, every, (len(context) if boundary is None else boundary,)))
    last = finish(engine)[-1]
    assert isinstance(last, Observed)
    return np.array(last.logits)


def text_of(model: Model, tokens: Sequence[int]) -> str:
    return b"".join(model.piece(token) for token in tokens).decode("utf-8", "replace")


def fed_tokens(updates: Sequence[Update]) -> list[int]:
    """How far reading had come after each decode."""
    return [update.done for update in updates if isinstance(update, Fed)]


def streamed(updates: Sequence[Update]) -> str:
    return "".join(update.text for update in updates if isinstance(update, Sampled))
