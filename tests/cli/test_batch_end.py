"""What a batch says at its end of rows that failed."""

from __future__ import annotations

import pytest

from rsd_cli.cli.batch_end import remedies

AGAIN = "--retry-errors tries those again that the engine failed at."
LONGER = "Ask those that are too long for this run's context with a larger --ctx, in a file of their own."
WITHOUT = (
    "Take out of the lines what is unsupported, then add --retry-errors; what only these models can't do "
    "can be asked of others, in a file of its own."
)
CORRECT = "Correct the lines that can't be asked, then add --retry-errors."


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ((), []),
        (("engine_error",), [AGAIN]),
        (("engine_crash",), [AGAIN]),
        (("error",), [AGAIN]),
        (("context_overflow",), [LONGER]),
        (("unsupported",), [WITHOUT]),
        (("bad_messages", "unsupported"), [WITHOUT, CORRECT]),
        (("bad_value", "invalid_json"), [CORRECT]),
        (("no_question", "context_overflow", "engine_crash"), [AGAIN, LONGER, CORRECT]),
    ],
)
def test_what_helps_is_said_of_each_kind_of_failure(codes, said):
    assert list(remedies(dict.fromkeys(codes, 1))) == said
