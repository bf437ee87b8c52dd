"""Tiny GGUF files and models that many tests share; each is written or loaded once."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from tests.tiny_gguf import WRITERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _options(options: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Options as a key: what can't be hashed travels as its items."""
    return tuple(sorted((key, _frozen(value)) for key, value in options.items()))


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return ("dict", tuple(value.items()))
    return ("list", tuple(value)) if isinstance(value, list) else value


def _thawed(value: Any) -> Any:
    if isinstance(value, tuple) and value and value[0] in ("dict", "list"):
        return dict(value[1]) if value[0] == "dict" else list(value[1])
    return value


@pytest.fixture(scope="session", autouse=True)
def _plain_environment():
    """What the environment of whoever runs the tests says of colours and terminals does not count."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            patched.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """tiny(kind, **options): the path of a tiny GGUF file."""
    folder = tmp_path_factory.mktemp("gguf")

    @cache
    def write(kind: str, options: tuple[tuple[str, Any], ...]) -> Path:
        path = folder / f"{kind}-{write.cache_info().misses}.gguf"
        return WRITERS[kind](path, **{key: _thawed(value) for key, value in options})

    return lambda kind="llama", **options: write(kind, _options(options))


@pytest.fixture(scope="session")
def tiny_model(tiny):
    """tiny_model(kind, **options): that file's loaded weights."""
    from rsd_cli.engine.llama import Model

    loaded: dict[Path, Model] = {}

    def load(kind: str = "llama", **options: Any) -> Model:
        path = tiny(kind, **options)
        if path not in loaded:
            loaded[path] = Model(path)
        return loaded[path]

    yield load
    for model in loaded.values():
        model.close()


@pytest.fixture
def tiny_engine(tiny_model):
    """tiny_engine(kind, **options): an engine on its weights; n_ctx, n_seats, n_batch and aborted shape it."""
    from rsd_cli.engine.context import ContextOptions
    from rsd_cli.engine.seats import Engine

    made: list[Engine] = []

    def make(
        kind: str = "llama",
        n_ctx: int = 512,
        n_seats: int = 1,
        n_batch: int = 128,
        aborted: Callable[[], bool] | None = None,
        **options: Any,
    ) -> Engine:
        # No half floats: these make a difference of a thousandth of one in the last digit between numbers of rows.
        shape = ContextOptions(n_ctx, n_seats, n_batch, threads=1, kv_type="f32", flash_attention=False)
        made.append(Engine(tiny_model(kind, **options), shape, aborted))
        return made[-1]

    yield make
    for engine in made:
        engine.close()
