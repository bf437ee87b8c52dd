"""Entry of `rsd` and `python -m rsd_cli`: the one place where errors become a sentence and an exit code."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from rsd_cli.cli.streams import fill_gaps, watch
from rsd_cli.cli.supervisor import supervised
from rsd_cli.errors import DISK_FULL, ModelError, ResourceError, RSDError, UsageError

if TYPE_CHECKING:
    from rsd_cli.cli.streams import Output


def main() -> None:
    """Run the command line; never returns."""
    fill_gaps()
    stdout = watch()
    debug = _take_debug(sys.argv)
    supervised(lambda: run(stdout, debug=debug))


def run(stdout: Output, *, debug: bool) -> int:
    """Run one command in this process and give its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an encoding too small for a character is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        from rsd_cli.cli.app import app  # takes long enough to be interrupted

        left = app(prog_name="rsd", standalone_mode=False)
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # typer leaves with 1 then
            return _left_behind(stdout, leaving.__context__)
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BrokenPipeError as error:
        return _left_behind(stdout, error)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            raise
        return _report(error, stdout)
    return left or 0  # the code of a typer.Exit


def _left_behind(stdout: Output, error: BrokenPipeError) -> int:
    """Whoever read our answer has enough; what is still buffered goes nowhere."""
    if not stdout.is_broken:
        return _report(error, stdout)
    stdout.discard()
    return 0


def _report(error: Exception, stdout: Output) -> int:
    from rsd_cli.cli.complaints import is_complaint, is_interrupt, translated
    from rsd_cli.display.consoles import show_error

    if is_interrupt(error):
        return 130
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        stdout.discard()
    told = _told(translated(error, sys.argv) if is_complaint(error) else error)
    show_error(told, color="--no-color" not in sys.argv)
    return told.exit_code


def _told(error: Exception) -> RSDError:
    """What the user is told of an error that nobody else put into words."""
    if isinstance(error, RSDError):
        return error
    if isinstance(error, MemoryError):
        return ResourceError("Not enough memory.", "Try a smaller trio or a smaller --ctx.")
    told = _told_by_system(error) if isinstance(error, OSError) else None
    if told:
        return told
    if isinstance(error, (ImportError, OSError)) and "llama" in str(error):
        return ModelError(f"llama-cpp-python can't be loaded: {error}.", "`rsd doctor` says what to do.")
    if isinstance(error, RuntimeError) and "home directory" in str(
        error
    ):  # of pathlib, for a path like ~nobody/x
        return UsageError("A path begins with ~ and a user whose home is not known.", "Write the whole path.")
    text = f"{type(error).__name__}: {error}"
    return RSDError(f"Unexpected {text}.", "This is a bug; run it again with --debug to see where.")


def _told_by_system(error: OSError) -> RSDError | None:
    if error.errno in DISK_FULL:
        return ResourceError("No room left to write the output.", "Free some disk space.")
    if isinstance(error, BrokenPipeError):
        return RSDError("Whoever read one of the outputs is gone.", "Let it read to the end, or name a file.")
    if error.filename and error.strerror:
        return UsageError(f"{error.filename}: {error.strerror}.", "Check the path, and who may use it.")
    return None


def _take_debug(argv: list[str]) -> bool:
    """Remove --debug wherever it stands before a `--`."""
    end = argv.index("--") if "--" in argv else len(argv)
    if "--debug" not in argv[:end]:
        return False
    argv.remove("--debug")
    return True


if __name__ == "__main__":
    main()
