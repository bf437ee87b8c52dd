"""The tasks: benchmarks by name, or a user's own from a short YAML file. Loads no data.

Prompts are the zero-shot ones of the Qwen2.5-Math evaluation (`qwen25-math-cot`): the system prompt of the paper and
the bare question; options of a multiple-choice question follow it as "Answer Choices: (A) … (B) …".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rsd_cli.decoding.prompts import MATHS
from rsd_cli.errors import UsageError
from rsd_cli.evaluation import items
from rsd_cli.registry.names import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rsd_cli.evaluation.grader import AnswerType


@dataclass(frozen=True)
class HubData:
    """Where a task's rows are on the Hugging Face Hub.

    `revision` is a commit of 40 hex digits. Without one the task is not pinned: the newest commit is looked up when
    it is loaded, and recorded.
    """

    repo: str
    splits: tuple[str, ...]
    config: str | None = None
    revision: str | None = None
    gated: bool = False


@dataclass(frozen=True)
class Task:
    """A benchmark: how its rows are read, how its answers are graded, what the models are told.

    `rows` is how many a whole set has, as published. `file` is the user task's own file, `declaration` what its
    YAML file says, as a hash.
    """

    name: str
    answer_type: AnswerType
    read: items.Reader
    source: HubData | None = None
    rows: int | None = None
    system: str = MATHS
    file: Path | None = None
    declaration: str | None = None


# Commits as public code that uses these sets names them; the hub was not at hand to look at them again. The one set
# without a commit is not pinned.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "gsm8k", "numeric", items.read_gsm8k, rows=1319,
            source=HubData("openai/gsm8k", ("test",), "main", "cc7b047b6e5bb11b4f1af84efc572db110a51b3c"),
        ),
        Task(
            "math500", "maths", items.read_plain, rows=500,
            source=HubData(
                "HuggingFaceH4/MATH-500", ("test",), revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"
            ),
        ),
        Task(
            "gaokao2023en", "maths", items.read_plain, rows=385,
            source=HubData("MARIO-Math-Reasoning/Gaokao2023-Math-En", ("train",)),
        ),
        Task(
            "olympiadbench", "maths", items.read_olympiadbench, rows=674,
            source=HubData(
                "Hothan/OlympiadBench", ("train",), "OE_TO_maths_en_COMP", "91184b52131e7fc9455fef848035173aea8cc01a"
            ),
        ),
        Task(
            "gpqa", "choice", items.read_gpqa, rows=198,
            source=HubData(
                "Idavidrein/gpqa", ("train",), "gpqa_diamond", "633f5ee89ab8ad4522a9f850766b73f62147ffdd", gated=True
            ),
        ),
        Task(
            "mmlu-stem", "choice", items.read_mmlu_stem, rows=3018,
            source=HubData("cais/mmlu", ("test",), "all", "c30699e8356da336a370243923dbaf21066bb9fe"),
        ),
        Task(
            "minerva", "maths", items.read_solved, rows=272,
            source=HubData("math-ai/minervamath", ("test",), revision="ee46ddc498933b1977577953250ca5c66be64f96"),
        ),
        Task(
            "svamp", "numeric", items.read_svamp, rows=1000,
            source=HubData("ChilleD/SVAMP", ("train", "test"), revision="5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef"),
        ),
        Task(
            "asdiv", "numeric", items.read_asdiv,
            source=HubData("EleutherAI/asdiv", ("validation",), revision="8f95807222d87b4c688c3c22a6ba2801e1fa03e2"),
        ),
        Task(
            "aime24", "numeric", items.read_solved, rows=30,
            source=HubData(
                "HuggingFaceH4/aime_2024", ("train",), revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a"
            ),
        ),
        Task(
            "amc23", "numeric", items.read_plain, rows=40,
            source=HubData("math-ai/amc23", ("test",), revision="80815d37005feb82cd7f8fbc6901d5d3eff43057"),
        ),
    )
}  # fmt: skip


def find_task(name: str) -> Task:
    """A task by its name, or a user's own by the path of its YAML file."""
    if name in TASKS:
        return TASKS[name]
    if Path(name).suffix.lower() in (".yaml", ".yml"):
        from rsd_cli.evaluation.usertask import read_task

        return read_task(Path(name))
    hint = suggestion(name, TASKS)
    end = "" if hint.endswith("?") else "."
    raise UsageError(
        f"No task is called {name!r}.", f"{hint[:1].upper()}{hint[1:]}{end} A YAML file is a task too."
    )


def find_tasks(names: Iterable[str]) -> list[Task]:
    """Several tasks; refuses two of the same name, under which results could not be told apart."""
    found: dict[str, str] = {}
    tasks = []
    for name in dict.fromkeys(names):
        task = find_task(name)
        if task.name in found:
            raise UsageError(
                f"{found[task.name]} and {name} are both called {task.name!r}.", "Give each its own name."
            )
        found[task.name] = name
        tasks.append(task)
    return tasks
