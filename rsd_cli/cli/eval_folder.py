"""The folder of an evaluation: whose it is, how fast its models decoded, and what is written in the end."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rsd_cli.batch.ledger import difference
from rsd_cli.decoding.strategies import parse
from rsd_cli.engine.pace import Pace
from rsd_cli.errors import OutputError, UsageError
from rsd_cli.evaluation.accounts import StrategyRun
from rsd_cli.evaluation.report.page import write_report
from rsd_cli.evaluation.results import last_ended, write_results
from rsd_cli.evaluation.runs import OF_TIME, Circumstances, Evaluation, TaskRun, Times
from rsd_cli.evaluation.table import markdown
from rsd_cli.output import write_whole
from rsd_cli.records import Role
from rsd_cli.strictjson import parsed, read_object

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from filelock import BaseFileLock

    from rsd_cli.cli.eval_run import Pass
    from rsd_cli.records import ModelId, Record

MANIFEST = "run.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Made:
    """How the answers of a folder came about, the newest ones at least, besides its settings."""

    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    chat_template_sha: dict[Role, str] = field(default_factory=dict)


@dataclass
class Manifest:
    """What `run.json` says of a folder; strategies and paces are those of a task and a strategy by their names.

    `ended` is empty while answers are given; None, like `made` without a command, where no run has noted it.
    """

    settings: dict[str, Any]
    started: str
    strategies: dict[str, dict[str, Any]] = field(default_factory=dict)
    paces: dict[str, dict[Role, Pace]] = field(default_factory=dict)
    ended: str | None = None
    made: Made = field(default_factory=Made)

    def to_json(self) -> str:
        """As it is written."""
        paces = {
            key: {role: pace.to_json() for role, pace in known.items()} for key, known in self.paces.items()
        }
        return json.dumps({**asdict(self), "paces": paces}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """The inverse; ValueError or TypeError for anything else."""
        known = read_object(cls, parsed(text.decode()), MANIFEST)
        told = {key: value for key, value in known.settings.items() if key in ("models", "data")}
        read_object(_Compared, told, f"{MANIFEST}.settings")
        return known


@dataclass
class _Compared:
    """Those of a manifest's settings that are not compared as they are."""

    models: dict[str, str]
    data: dict[str, dict[str, Any]]


def revisions_of(folder: Path) -> dict[str, str]:
    """The commits of the hub that a folder's rows are of, by task; none where its manifest can't be read."""
    try:
        origins = Manifest.from_json((folder / MANIFEST).read_bytes()).settings["data"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # which the folder itself says
        return {}
    return {task: origin["revision"] for task, origin in origins.items() if origin.get("revision")}


@dataclass
class Folder:
    """A folder with the samples of strategies; all of them were made with the same `settings`.

    A strategy that comes later may need models and a PRM that no earlier one did. What is noted is written from
    `begin` on: a command that fails before it binds no later one. No other process has the folder until it is closed.
    """

    path: Path
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{self.path} can't be made: {error.strerror}.", "Name another -o FOLDER."
            ) from error
        self._lock = self._locked()
        try:
            self._known = self._read()
            self._adopt()
        except BaseException:
            self.close()
            raise

    def _locked(self) -> BaseFileLock:
        """Taken; the kernel drops it when its holder dies."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f"{self.path} is being written by another rsd eval.",
                "Wait for it, or name another folder with -o.",
            ) from None
        except OSError as error:
            raise UsageError(
                f"{self.path} can't be written: {error.strerror}.", "Name another -o FOLDER."
            ) from error
        return lock

    def close(self) -> None:
        """Let others write to it."""
        self._lock.release()

    def _adopt(self) -> None:
        """Refuse other settings than those of earlier runs; models and a PRM may join."""
        before, now = self._known.settings, self.settings
        models = {**before["models"], **now["models"]}
        asks_prm = any(_asks_prm(each) for each in self._known.strategies.values())
        known = before.get("prm") if asks_prm else now["prm"]  # one that was not asked does not count
        self.settings = {**now, "models": models, "prm": known if now["prm"] is None else now["prm"]}
        before = {**before, "models": {**models, **before["models"]}, "prm": known}
        other = difference(_placeless(before), _placeless(self.settings))
        if other:
            raise OutputError(
                f"{self.path} was made with other settings: {other}.",
                "Use the same again, or name another folder with -o.",
            )
        self._known.settings = self.settings

    def _read(self) -> Manifest:
        manifest, hint = self.path / MANIFEST, "Mend it, or name another folder with -o."
        try:
            return Manifest.from_json(manifest.read_bytes())
        except FileNotFoundError:
            return Manifest(self.settings, _now(), ended="")
        except OSError as error:
            raise OutputError(f"{manifest} can't be read: {error.strerror}.", hint) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise OutputError(f"{manifest} is none of rsd eval: {error}.", hint) from error

    def check(self, passes: Sequence[Pass]) -> None:
        """Refuse strategies that were run here with other settings of their own; note those of new ones."""
        for each in passes:
            settings = json.loads(json.dumps(asdict(each.settings)))
            before = self._known.strategies.setdefault(_key(each), settings)
            other = difference(_of_effect(before, each), _of_effect(settings, each))
            if other:
                raise OutputError(
                    f"{self.path} has {each.name} with other settings: {other}.",
                    "Name another folder with -o.",
                )

    def begin(self, made: Made) -> None:
        """Note how the answers come about that are given now."""
        known = self._known.made
        merged = {
            **known.chat_template_sha,
            **made.chat_template_sha,
        }  # a later strategy may need fewer models
        self._known.made, self._known.ended = replace(made, chat_template_sha=merged), ""
        self._write()

    def spent(self, each: Pass, templates: dict[Role, str]) -> None:
        """Add to what is known of a strategy's models: how fast they decode, hashes of their chat templates."""
        self._known.made.chat_template_sha.update(templates)
        paces = self._known.paces.setdefault(_key(each), {})
        for role, pace in each.paces.items():
            paces[role] = Pace.from_json((paces.get(role, Pace()) + pace).to_json())  # as it will be read
        self._write()

    def _write(self) -> None:
        # A byte of a file's name that is no character has no UTF-8; as an escape it is the same JSON.
        write_whole(self.path / MANIFEST, [self._known.to_json().encode("utf-8", "backslashreplace")])

    def finish(self, passes: Sequence[Pass], limit: int | None, sizes: dict[Role, float]) -> Evaluation:
        """Write results, table and report."""
        by_task: dict[str, list[StrategyRun]] = {}
        for each in passes:
            giver = each.giver.name if each.giver else None
            run = StrategyRun(each.name, each.samples, giver, self._known.paces.get(_key(each), {}))
            by_task.setdefault(each.data.task.name, []).append(run)
        tasks = tuple(TaskRun(task, tuple(runs)) for task, runs in by_task.items())
        rows = {each.data.task.name: each.data.task.rows for each in passes}
        whole = {task: n for task, n in rows.items() if n is not None}
        if self._known.ended is None:
            self._known.ended = last_ended(self.path)
        self._known.ended = self._known.ended or _now()
        self._write()
        circumstances = self._circumstances(passes, tasks, limit)
        evaluation = Evaluation(tasks, replace(circumstances, rows=whole), sizes)
        write_results(self.path, evaluation, _now())
        write_whole(self.path / "results.md", [markdown(evaluation).encode("utf-8", "replace")])
        write_report(self.path / "report.html", evaluation)
        return evaluation

    def _circumstances(
        self, passes: Sequence[Pass], tasks: Sequence[TaskRun], limit: int | None
    ) -> Circumstances:
        records = [
            record for task in tasks for run in task.strategies for s in run.samples for record in s.records
        ]
        made = self._known.made
        return Circumstances(
            times=Times(self._known.started, self._known.ended or _now()),
            versions={**(records[0].versions if records else {}), **made.versions},
            config=self._config(passes, records),
            seeds={"sampling": self.settings["seed"], "bootstrap": 0},
            hardware=_hardware(),
            models=_models(records),
            limit=limit,
            chat_template_sha=made.chat_template_sha,
            command=made.command,
        )

    def _config(self, passes: Sequence[Pass], records: Sequence[Record]) -> dict[str, Any]:
        """The folder's settings, those that strategies have besides, and what else the answers' times depend on."""
        strategies: dict[str, dict[str, Any]] = {}
        for each in passes:
            known = _of_effect(self._known.strategies[_key(each)], each)
            own = {key: value for key, value in known.items() if (key, value) not in self.settings.items()}
            strategies.setdefault(each.data.task.name, {})[each.name] = own
        used = {key: sorted({r.settings[key] for r in records if key in r.settings}) for key in OF_TIME}
        return {**self.settings, "strategies": strategies, **used}


def _placeless(settings: dict[str, Any]) -> dict[str, Any]:
    """Without the paths of files whose content is known: a file that was moved has the same rows."""
    data = {
        task: {key: value for key, value in origin.items() if key != "place" or not origin.get("sha256")}
        for task, origin in settings["data"].items()
    }
    return {**settings, "data": data}


def _asks_prm(settings: dict[str, Any]) -> bool:
    """Whether a strategy with these settings does; one that nobody knows may."""
    try:
        return "prm" in parse(str(settings.get("strategy"))).roles
    except UsageError:
        return True


def _of_effect(settings: dict[str, Any], each: Pass) -> dict[str, Any]:
    """A strategy's settings without the threshold where no step passes or fails it, or a budget finds its own."""
    heeds_threshold = each.strategy.kind.gates and each.settings.target_share is None
    return settings if heeds_threshold else {**settings, "threshold": None}


def _key(each: Pass) -> str:
    return f"{each.data.task.name} {each.name}"


def _models(records: Sequence[Record]) -> dict[Role, ModelId]:
    models: dict[Role, ModelId] = {}
    for record in records:
        models |= record.models
    return models


def _hardware() -> dict[str, Any]:
    return {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()}


def _now() -> str:
    """In UTC, so that the names of results are in the order of their times."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S%z")
