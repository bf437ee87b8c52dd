"""What can go wrong for a user, and the exit code of each kind. Knows nothing about how it is shown.

RSDError (1, runtime)
├── UsageError (2)      bad flag, bad configuration, unusable input
├── ModelError (3)      model or benchmark missing, unverified or unusable
├── ResourceError (4)   memory or disk exhausted
├── OutputError (5)     the output file belongs to something else
└── EngineError (6)     llama.cpp crashed or computed nonsense
"""

import errno

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class RSDError(Exception):
    """One sentence for the user, with the offending value, and a hint: the next thing to try."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(RSDError):
    """A flag, a configuration file or an input that cannot be used."""

    exit_code = 2


class ModelError(RSDError):
    """A model that is missing, unverified or unusable, or a benchmark's rows that can't be had."""

    exit_code = 3


class ResourceError(RSDError):
    """Memory or disk is exhausted."""

    exit_code = 4


class OutputError(RSDError):
    """An output file that belongs to another run, or that cannot be continued."""

    exit_code = 5


class EngineError(RSDError):
    """The engine failed: llama.cpp gave up, or the weights produce nonsense."""

    exit_code = 6
