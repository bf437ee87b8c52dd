"""llama.cpp's own quantizer, for GGUF files that this tool makes. It chooses nothing and loads no model."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from rsd_cli.engine.llama import C, DecodeAborted, listen, reason
from rsd_cli.errors import DISK_FULL, ModelError, ResourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PREFIX = "LLAMA_FTYPE_MOSTLY_"
AS_WRITTEN = "f16"
# what llama.cpp does not quantize to without an importance matrix
WITH_MATRIX = ("iq1", "iq2", "iq3_x", "q2_k_s")
NEVER_WRITTEN = "nvfp4"  # it only reads these
POLL_SECONDS = 0.1
PROBE = bytes(1 << 20)  # llama.cpp does not say why it could not write


def quantizations() -> dict[str, int]:
    """llama.cpp's file types by the names that its own tools use, in small letters; only what it writes unaided."""
    known = {
        name.removeprefix(PREFIX).lower(): getattr(C, name) for name in dir(C) if name.startswith(PREFIX)
    }
    refused = (*WITH_MATRIX, NEVER_WRITTEN)
    return {name: int(number) for name, number in known.items() if not name.startswith(refused)}


def check_quantization(name: str) -> None:
    """Raises UsageError for a name that llama.cpp does not quantize to, or only with an importance matrix."""
    if name in quantizations():
        return
    common = [known for known in ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m") if known in quantizations()]
    what = "is no quantization of llama.cpp"
    if name.startswith(WITH_MATRIX) and hasattr(C, PREFIX + name.upper()):
        what = "needs an importance matrix, which nothing here makes"
    raise UsageError(f"{name!r} {what}.", f"Common ones: {', '.join(common)}.")


def quantize(source: Path, output: Path, name: str, aborted: Callable[[], bool]) -> None:
    """Write `source` quantized. Raises ModelError if llama.cpp can't, ResourceError if no room is left for it.

    DecodeAborted when asked to stop: llama.cpp offers no way to stop it, so it runs beside, and an abandoned run ends
    with the process.
    """
    params = C.llama_model_quantize_default_params()
    params.ftype = quantizations()[name]
    codes: list[int] = []

    def work() -> None:
        codes.append(C.llama_model_quantize(os.fsencode(source), os.fsencode(output), params))

    listen()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        if aborted():
            raise DecodeAborted
        time.sleep(POLL_SECONDS)
    if codes != [0]:
        why = reason()
        if _is_full(output):
            raise ResourceError(
                f"No room left to write {output} as {name}.", "Free some space, or choose another disk."
            )
        raise ModelError(
            f"llama.cpp could not write {output} as {name}{why}.", "" if why else "Is the disk full?"
        )


def _is_full(output: Path) -> bool:
    """Whether no more fits into a file."""
    try:
        with output.open("ab") as file:
            file.write(PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno in DISK_FULL
    return False
