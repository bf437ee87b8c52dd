"""The record of an answer that loaded models gave: what their run adds to it. Shared by the commands that answer."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

from rsd_cli.decoding.recording import Circumstances, make_record, versions
from rsd_cli.engine.llama import build

if TYPE_CHECKING:
    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.decoding.runner import Finished
    from rsd_cli.records import Record


def recorded(done: Finished, loaded: LoadedTrio, described: dict[str, Any], started: float) -> Record:
    """The record; `started` is on `time.perf_counter`'s scale."""
    problem, settings = done.trajectory.problem, done.trajectory.settings
    target, prompt = None, 0
    if loaded.has_begun("target") and done.ended_by != "interrupted":
        target = loaded.engine("target").model
        prompt = len(loaded.prompt("target", settings.system, problem.question, problem.before))
    circumstances = Circumstances(
        models=loaded.ids(),
        settings=described,
        started=started,
        loaded=max(started, loaded.first_loaded_at),
        ended=time.perf_counter(),
        target=target,
        target_prompt=prompt,
        versions=dict(_versions()),
    )
    return make_record(done, circumstances)


@cache
def _versions() -> dict[str, str]:
    return versions(build()["llama_cpp_commit"])
