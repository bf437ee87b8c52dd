"""Standard streams that were closed by whoever started the command: /dev/null takes their places.

Comes before anything else is opened: a file that got the number of such a stream would be written to as one.
"""

from __future__ import annotations

import os
import sys

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def fill_gaps() -> None:
    """Let the descriptors 0 to 2 be open, and Python have a stream on each."""
    for number, (name, mode) in enumerate(STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(
                os.open(os.devnull, os.O_RDWR), True
            )  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
