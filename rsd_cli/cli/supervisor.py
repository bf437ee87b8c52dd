"""Runs the command in a child process, since llama.cpp can abort and the kernel can kill it.

The parent only waits; it turns a death by signal into one sentence and exit code 6 (4 if it was probably the
out-of-memory killer), on a terminal that is as it was before. A command that left notes of what it was doing is run
again after a crash, to go on behind it. It forks before anything heavy is imported. Where forking is not safe (macOS,
Windows) the command runs directly.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from rsd_cli.cli import notes
from rsd_cli.cli.interrupt import SIGNALS, heeded

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

PR_SET_PDEATHSIG = 1
# A prompt takes pastes in brackets and has a status line below; a live display hides the cursor.
AS_USUAL = "\x1b[?2004l\x1b[?25h\x1b[J\n"
CAUSES = {
    signal.SIGBUS: "a model file changed or its disk failed while it was in use",
    signal.SIGABRT: "llama.cpp stopped itself",
    signal.SIGSEGV: "llama.cpp reached memory that is not its own",
    signal.SIGILL: "this build of llama.cpp uses instructions that the CPU does not have",
}


def supervised(command: Callable[[], int]) -> NoReturn:
    """Run `command` in a child and leave with its exit code."""
    if not sys.platform.startswith("linux"):
        sys.exit(command())
    notes.offer()
    code = _run(command)
    while -code in CAUSES and notes.are_there():
        name = signal.Signals(-code).name
        sys.stderr.write(f"The engine crashed with {name} and is started again.\n")
        code = _run(command)
    os._exit(_explain(-code) if code < 0 else code)


def _run(command: Callable[[], int]) -> int:
    """The exit code of the command in a child; minus the signal that killed it."""
    parent, forwarded, modes = os.getpid(), heeded(), _terminal_modes()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, forwarded)  # until there are handlers
    child = os.fork()
    if child == 0:
        for number in forwarded:
            signal.signal(number, _interrupt_once if number == signal.SIGINT else signal.SIG_DFL)
        _die_with(parent)
        _leave(_run_unblocked(command, before))
    # A terminal sends Ctrl-C to both, `kill` to the parent alone; the child counts what comes twice at once as one.
    for number in forwarded:
        signal.signal(number, lambda number, _frame: _forward(child, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        _restore_terminal(modes)
    return code


def _terminal_modes() -> list[Any] | None:
    """How the terminal that is typed at is set, echo and all; None where there is none."""
    import termios

    try:
        return termios.tcgetattr(0)
    except termios.error:
        return None


def _restore_terminal(modes: list[Any] | None) -> None:
    """Set the terminal as it was before a child that could not do so itself."""
    import termios

    shown = next((stream for stream in (sys.stderr, sys.stdout) if stream.isatty()), None)
    with contextlib.suppress(OSError, termios.error):  # it may be gone
        if modes and _is_ours(0):
            termios.tcsetattr(0, termios.TCSANOW, modes)
        if shown and _is_ours(shown.fileno()):
            shown.write(AS_USUAL)
            shown.flush()


def _is_ours(terminal: int) -> bool:
    """Whether this program has the terminal, and not one that was begun after it went to the background."""
    return os.tcgetpgrp(terminal) == os.getpgrp()


def _run_unblocked(command: Callable[[], int], blocked: set[int]) -> int:
    """The exit code of the command, also if a Ctrl-C was waiting and comes before it can heed one."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return command()
    except KeyboardInterrupt:
        return 130


def _forward(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    """Like Python's own handler, but the command ends anyway, so what comes after it is not needed."""
    signal.signal(number, signal.SIG_IGN)
    signal.default_int_handler(number, frame)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _die_with(parent: int) -> None:
    """Let the kernel end this process when the parent is gone."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(143)


def _explain(number: int) -> int:
    """Say what killed the child, and give the exit code."""
    if number in SIGNALS:
        return 143 if number != signal.SIGINT else 130
    if number == signal.SIGKILL:
        sys.stderr.write("error: The process was killed, probably because memory ran out.\n")
        sys.stderr.write("hint: Try a smaller trio or a smaller --ctx.\n")
        return 4
    cause = CAUSES.get(signal.Signals(number), "it was killed from outside")
    sys.stderr.write(f"error: The engine crashed with {signal.Signals(number).name}: {cause}.\n")
    sys.stderr.write("hint: Check the models with `rsd models verify`.\n")
    return 6
