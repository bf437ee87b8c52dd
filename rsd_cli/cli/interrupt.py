"""Signals while models work: the first asks for a clean end, a later one leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

    Handler = Callable[[int, FrameType | None], Any]

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
SHOW_CURSOR = b"\x1b[?25h"  # a live display hides it
ECHO_SECONDS = 0.3  # one Ctrl-C reaches us from the terminal and through the parent


def heeded() -> list[int]:
    """Those that are ours to handle: what whoever started us ignores (nohup, a script's `&`) stays ignored."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


class Interrupt:
    """A flag that these signals raise, as a context manager. Outside the main thread it only is a flag."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._at = 0.0
        self._before: dict[int, object] = {}

    def __call__(self) -> bool:
        """Whether a clean end is asked for."""
        return self.signal is not None

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[None]:
        """While nothing is computed signals have their usual effect: an exception, whoever holds the terminal.

        An earlier Ctrl-C was answered by now, and is forgotten; what asked for the end of all gets it here at last.
        """
        if self() and self.exit_code != 130:
            raise SystemExit(self.exit_code)
        self.signal = None
        calm: dict[int, Handler] = dict.fromkeys(heeded(), _leave)
        if signal.SIGINT in calm:
            calm[signal.SIGINT] = signal.default_int_handler
        busy = {number: signal.signal(number, handler) for number, handler in calm.items()}
        try:
            yield
        finally:
            for number, handler in busy.items():
                signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for whatever else ends processes."""
        return 130 if self.signal == signal.SIGINT else 143

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._raise) for number in heeded()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._at = number, time.monotonic()
        elif time.monotonic() - self._at > ECHO_SECONDS:
            if os.isatty(2):
                os.write(2, SHOW_CURSOR)
            os._exit(self.exit_code)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)
