"""The files of an evaluation: `results_<time>.json` with every figure, and the sample files that it names.

Reads them back as an evaluation, from the samples; the figures are computed anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rsd_cli.engine.pace import Pace
from rsd_cli.errors import OutputError, UsageError
from rsd_cli.evaluation.accounts import StrategyRun
from rsd_cli.evaluation.costs import projected
from rsd_cli.evaluation.runs import Circumstances, Evaluation, TaskRun, relative_compute
from rsd_cli.evaluation.samples import read_samples, set_hash
from rsd_cli.output import write_whole
from rsd_cli.records import ROLES
from rsd_cli.registry.files import kind_at
from rsd_cli.strictjson import read_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import TypeVar

    from rsd_cli.evaluation.accounts import Account, Budget
    from rsd_cli.evaluation.costs import Compute
    from rsd_cli.records import Role

    Figure = TypeVar("Figure")

AGAIN = "Run its rsd eval once more, which writes the results anew."
PLAIN = re.compile(r"[^\w.@=-]+")  # what file names are spared


def results_of(evaluation: Evaluation) -> dict[str, Any]:
    """What `results_<time>.json` holds, as JSON knows it."""
    by_task = {run.task: _task_json(run, evaluation.project) for run in evaluation.tasks}
    verdicts = {run.task: run.verdict() for run in evaluation.tasks}
    return {
        "results": by_task,
        "verdicts": {task: verdict.to_json() for task, verdict in verdicts.items() if verdict},
        "n": _by_strategy(evaluation, lambda _task, run: len(run.samples)),
        "hashes": _by_strategy(evaluation, lambda _task, run: set_hash(run.samples)),
        "samples": _by_strategy(evaluation, lambda task, run: samples_name(task, run.name)),
        "wall_seconds": _by_strategy(evaluation, lambda _task, run: run.wall_seconds),
        "drawn_by": _by_strategy(evaluation, lambda _task, run: run.drawn_by),
        "paces": _by_strategy(
            evaluation, lambda _task, run: {role: pace.to_json() for role, pace in run.paces.items()}
        ),
        "project_params": dict(evaluation.project),
        "comparable": not evaluation.partial,
        **asdict(evaluation.circumstances),
    }


def samples_name(task: str, strategy: str) -> str:
    """The name of a strategy's sample file: the same for every run in a folder, so that a run can go on."""
    plain = PLAIN.sub("-", strategy)
    mark = "" if plain == strategy else "-" + hashlib.sha256(strategy.encode()).hexdigest()[:6]
    return f"samples_{PLAIN.sub('-', task)}_{plain}{mark}.jsonl"


def write_results(folder: Path, evaluation: Evaluation, now: str = "") -> Path:
    """Write `results_<time>.json` into the folder that has the sample files, unless the newest there says the same.

    The time is the end of the run, or `now` where the folder has results already.
    """
    text = json.dumps(results_of(evaluation), ensure_ascii=False, allow_nan=False, indent=1)
    data = text.encode("utf-8", "backslashreplace") + b"\n"
    newest = _newest(folder)
    if newest and newest.read_bytes() == data:
        return newest
    name = now if newest and now else evaluation.circumstances.times.ended
    path = folder / f"results_{name.replace(':', '-')}.json"
    write_whole(path, [data])
    return path


def last_ended(folder: Path) -> str | None:
    """When the run ended of which the newest results in a folder are; None where there are none."""
    newest = _newest(folder)
    try:
        return str(json.loads(newest.read_bytes())["times"]["ended"]) if newest else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _newest(folder: Path) -> Path | None:
    found = (path for path in folder.glob("results_*.json") if kind_at(path) == "file")
    return max(found, default=None)


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation of a results file with the sample files beside it, or of the newest one in a folder."""
    kind = kind_at(path)
    if kind is None:
        raise UsageError(f"{path} is not there.", "Name a folder that rsd eval wrote.")
    if kind == "folder":
        newest = _newest(path)
        if newest is None:
            raise UsageError(f"{path} has no results_*.json.", "Name a folder that rsd eval wrote.")
        path = newest
    try:
        data = json.loads(path.read_bytes())
        names = [each.name for each in dataclasses.fields(Circumstances)]
        told = {name: data[name] for name in names if name in data}
        circumstances = read_object(Circumstances, told, "results")
        tasks = tuple(
            TaskRun(task, tuple(_read_run(path.parent, data, task, strategy) for strategy in samples))
            for task, samples in data["samples"].items()
        )
        sizes = data["project_params"]
        project: dict[Role, float] = {role: float(sizes[role]) for role in ROLES if role in sizes}
    except OSError as error:
        raise OutputError(f"{path} can't be read: {error.strerror}.", AGAIN) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(f"{path} holds no results of rsd eval: {error}.", AGAIN) from error
    return Evaluation(tasks, circumstances, project)


def _read_run(folder: Path, data: dict[str, Any], task: str, strategy: str) -> StrategyRun:
    name, n = data["samples"][task][strategy], data["n"][task][strategy]
    if name != samples_name(task, strategy):  # nothing else is read than sample files beside the results
        raise ValueError(f"samples of {task} by {strategy} are said to be in {name!r}")
    giver = data["drawn_by"][task][strategy]
    asked = (sample for sample in read_samples(folder / name) if sample.doc_id < n)  # of a run up to a limit
    return StrategyRun(
        strategy,
        tuple(
            sorted(asked, key=lambda sample: sample.doc_id)
        ),  # as the run had them: estimates go by the order
        None if giver is None else str(giver),
        {role: Pace.from_json(told) for role, told in data["paces"][task][strategy].items()},
    )


def _by_strategy(
    evaluation: Evaluation, figure: Callable[[str, StrategyRun], Figure]
) -> dict[str, dict[str, Figure]]:
    return {
        run.task: {each.name: figure(run.task, each) for each in run.strategies} for run in evaluation.tasks
    }


def _task_json(run: TaskRun, project: Mapping[Role, float]) -> dict[str, Any]:
    accounts = run.accounts
    here, elsewhere = relative_compute(accounts, {}), relative_compute(accounts, project)
    found = {account.strategy: _account_json(account) for account in accounts}
    for account in accounts:
        own = found[account.strategy]
        own["compute_vs_target"] = here.get(account.strategy)
        if project:
            flops = _flops_json(projected(account.cost.tokens, project))
            own["projection"] = {"flops": flops, "compute_vs_target": elsewhere.get(account.strategy)}
    return found


def _account_json(account: Account) -> dict[str, Any]:
    return {
        "accuracy": account.accuracy,
        "stderr": account.stderr,
        "right": account.right,
        "n": account.n,
        "answered": account.answered,
        "difference_to_first": asdict(account.difference) if account.difference else None,
        "outcomes": account.outcomes,
        "cut_short": account.cut_short,
        "steps_without_reward": account.unrewarded,
        "tokens": {role: asdict(used) for role, used in account.cost.tokens.items()},
        "judged_tokens": account.cost.judged,
        "flops": _flops_json(account.cost.flops),
        "time": {role: asdict(spent) for role, spent in account.cost.times.items()},
        "seconds_in_models": account.cost.seconds,
        **asdict(account.authorship),
        "budgets": [_budget_json(budget) for budget in account.budgets],
    }


def _budget_json(budget: Budget) -> dict[str, Any]:
    return {
        "choice": budget.choice,
        "n": budget.n,
        "answered": budget.answered,
        "right": budget.right,
        "accuracy": budget.accuracy,
        "stderr": budget.stderr,
        "difference_to_first": asdict(budget.difference) if budget.difference else None,
        "tokens": {role: asdict(used) for role, used in budget.cost.tokens.items()},
        "flops": _flops_json(budget.cost.flops),
        "seconds_in_models": budget.cost.seconds,
    }


def _flops_json(flops: Mapping[Role, Compute]) -> dict[str, Any]:
    total = sum(each.total for each in flops.values())
    return {"total": total, **{str(role): asdict(each) for role, each in flops.items()}}
