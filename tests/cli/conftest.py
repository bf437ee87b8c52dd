from __future__ import annotations

import signal

import pytest

from tests.cli.command import Rsd, declared, trio
from tests.engine.driving import NO_END

ENDLESS = {"<eos>": -50.0, "\n\n": 3.0, ".\n\n": 3.0}
BIG = {"n_ctx_train": 16384, "n_embd": 256, "n_layer": 8}


@pytest.fixture(scope="session", autouse=True)
def _no_signal_is_ignored():
    """The command leaves ignored what its parent ignores, and the tests may run under nohup.

    A handler that does nothing is not handed down.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture
def rsd(tmp_path, tiny):
    """The command with trios: `tiny` (also `starter`), `judged`, `alike` (one file for all), `endless`."""
    files = {
        "draft": tiny(seed=1),
        "target": tiny("other", seed=2),
        "judge": tiny("qwen2", seed=3),
        "slow": tiny(seed=4, favour=NO_END, **BIG),
    }
    made = Rsd(tmp_path)
    made.write_models(
        declared(
            files,
            {
                "tiny": trio("draft", "target"),
                "starter": trio("draft", "target"),
                "judged": trio("draft", "target", "opinion", 0.5),
                "alike": trio("draft", "draft", "same", 0.5),
                "endless": trio("slow", "slow"),
            },
            opinion={"family": "judge", "model": "judge", "threshold": 0.5, "calibrated_on": "nothing"},
            same={"family": "judge", "model": "draft", "threshold": 0.5, "calibrated_on": "nothing"},
        )
    )
    yield made
    made.stop()
