"""The record of an answer that loaded models gave: what their run adds to it. Shared by the commands that answer."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

from rsd_cli.decoding.recording import Circumstances, make_record, versions
from rsd_cli.engine.llama import build
from rsd_cli.errors import ModelError

if TYPE_CHECKING:
    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.decoding.runner import Finished
    from rsd_cli.engine.llama import Model
    from rsd_cli.records import Record


def recorded(done: Finished, loaded: LoadedTrio, described: dict[str, Any], started: float) -> Record:
    """The record; `started` is on `time.perf_counter`'s scale."""
    target, prompt = _target_alone(done, loaded)
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


def _target_alone(done: Finished, loaded: LoadedTrio) -> tuple[Model | None, int]:
    """The target and the tokens of the question for it; None where that is not known.

    An answer that did without it neither waits for it to load nor fails because its template refuses the turns.
    """
    problem, settings = done.trajectory.problem, done.trajectory.settings
    engine = loaded.loaded().get("target")
    if engine is None or done.ended_by == "interrupted":
        return None, 0
    try:
        prompt = loaded.prompt("target", settings.system, problem.question, problem.before)
    except ModelError:
        return None, 0
    return engine.model, len(prompt)


@cache
def _versions() -> dict[str, str]:
    return versions(build()["llama_cpp_commit"])
