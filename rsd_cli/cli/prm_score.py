"""`rsd prm score`: what a reward model says of solutions that are there already."""

from __future__ import annotations

import json
import math
import re
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsd_cli.cli import options
from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.rewards.families import Aggregate, Solution
    from rsd_cli.rewards.scoring import Scored

FORMS = (
    'Give JSONL of {"problem": "…", "steps": ["…"]}, or the question and its steps with blank lines between.'
)


def score(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSONL or text; - reads standard input.")],
    prm: Annotated[str, typer.Option("--prm", metavar="PRM", help="The reward model.")] = "starter-0.5b",
    aggregate: Annotated[
        str, typer.Option("--aggregate", help="A solution's score: last, min, product or mean.")
    ] = "min",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a solution.")] = False,
    seats: Annotated[int, typer.Option("--seats", min=1, max=256, help="Solutions side by side.")] = 4,
    models: options.ModelsFile = None,
    offline: options.Offline = False,
    yes: options.Yes = False,
    no_color: options.NoColor = False,
    threads: options.Threads = 0,
    gpu_layers: options.GpuLayers = "",
    ctx: options.Ctx = 0,
) -> None:
    """Score the steps of given solutions.

    A solution counts as finished: its last step is read as one that ends the answer.
    """
    from rsd_cli.cli import room, setup
    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.cli.screen import echo_json
    from rsd_cli.cli.shape import Shape, parse_layers
    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.engine.llama import DecodeAborted
    from rsd_cli.rewards.families import AGGREGATES

    how = options.one_of("--aggregate", aggregate, AGGREGATES)
    solutions = list(read_solutions(_read(file), file))
    found = setup.find_prm(prm, setup.Access(models, offline, yes=yes, color=not no_color))
    shape = Shape(ctx, min(seats, len(solutions)), threads=threads, gpu_layers=parse_layers(gpu_layers))
    room.check_memory(found.models, shape, "--ctx or --seats")
    with (
        Interrupt() as interrupt,
        closing(LoadedTrio(found.models, found.prm, shape, interrupt)) as loaded,
        suppress(DecodeAborted),
    ):
        for scored in _score(loaded, solutions):
            if interrupt():
                break
            if as_json:
                echo_json(json.dumps(_described(scored, how, prm), ensure_ascii=False))
            else:
                _show(scored, how, found.threshold, color=not no_color)
    if interrupt():
        raise typer.Exit(interrupt.exit_code)


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}.", FORMS) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8.", FORMS) from error


def read_solutions(text: str, name: str) -> Iterator[tuple[str, Solution]]:
    """Solutions with their names, from JSONL or plain text; all steps but the last end with the separator."""
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")) if block.strip()]
    if _is_json(text.lstrip(), len(blocks)):
        for number, line in enumerate(text.split("\n"), start=1):  # JSON may hold what else ends a line
            if line.strip():
                yield _from_json(line, number, name)
        return
    if len(blocks) < 2:
        raise UsageError(f"{name} has no question with steps.", FORMS)
    yield name, _solution(blocks[0], blocks[1:])


def _is_json(text: str, n_blocks: int) -> bool:
    """Whether the first line is an object, or was to be one: a question may begin with a brace as well."""
    try:
        return isinstance(json.loads(text.split("\n", 1)[0]), dict)
    except (ValueError, RecursionError):
        return text.startswith("{") and n_blocks < 2


def _from_json(line: str, number: int, name: str) -> tuple[str, Solution]:
    try:
        row: Any = json.loads(line)
        question = row.get("problem", row.get("question"))
        steps = [step["text"] if isinstance(step, dict) else step for step in row["steps"]]
        if not isinstance(question, str) or not steps or not all(isinstance(step, str) for step in steps):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"Line {number} of {name} is no problem with steps.", FORMS) from None
    ident = row.get("id")
    return str(number if ident is None else ident), _solution(question, steps)


def _solution(question: str, steps: list[str]) -> Solution:
    from rsd_cli.rewards.families import Solution

    *before, last = steps
    return Solution(question, (*(step.rstrip("\n") + "\n\n" for step in before), last), ended=True)


def _score(loaded: LoadedTrio, solutions: list[tuple[str, Solution]]) -> Iterator[Scored]:
    from rsd_cli.rewards.families import Confidence
    from rsd_cli.rewards.scoring import score

    family = loaded.family
    if family is None or isinstance(family, Confidence):
        raise UsageError(
            "confidence scores only what a draft writes itself, not given text.", "Choose another --prm."
        )
    return score(loaded.engine("prm"), family, solutions)


def _described(scored: Scored, how: Aggregate, prm: str) -> dict[str, Any]:
    from rsd_cli.rewards.families import aggregate

    total = aggregate(scored.rewards, how)
    return {
        "id": scored.id,
        "prm": prm,
        "rewards": [_known(reward) for reward in scored.rewards],
        "aggregate": how,
        "score": _known(total),
    }


def _known(reward: float) -> float | None:
    return None if math.isnan(reward) else round(reward, 6)


def _show(scored: Scored, how: Aggregate, threshold: float, *, color: bool) -> None:
    from rsd_cli.display.consoles import stdout_console
    from rsd_cli.display.scores import Score, show_scores
    from rsd_cli.rewards.families import aggregate

    rows = [
        Score(str(number), reward, step)
        for number, (step, reward) in enumerate(
            zip(scored.solution.steps, scored.rewards, strict=True), start=1
        )
    ]
    rows.append(Score(how, aggregate(scored.rewards, how), "(of all steps)"))
    show_scores(stdout_console(color=color), scored.id, rows, threshold)
