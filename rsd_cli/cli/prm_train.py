"""`rsd prm train`: makes a head on a generator's own hidden states, from nothing but checkable problems."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsd_cli.cli import options
from rsd_cli.cli.questions import Task, read_questions
from rsd_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.cli.warm import FoundModel
    from rsd_cli.engine.seats import Engine
    from rsd_cli.rewards.rollouts import Plan, Question, Rollout, Sampled

CELLS = 1024  # context of a seat: a word problem and its solution


def train(
    problems: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="JSONL with question and answer; a GSM8K answer's #### is known."
        ),
    ],
    work: Annotated[
        Path, typer.Option("--work", metavar="DIR", help="Where rollouts are kept; continued if there.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The head to write.")],
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="The generator whose states are read.")
    ] = "qwen2.5-coder-0.5b",
    rows: Annotated[
        int, typer.Option("--rows", min=10, help="Problems to sample from, from the top.")
    ] = 1000,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Solutions of each problem.")] = 2,
    label: Annotated[
        int, typer.Option("--label", min=0, help="Held-out rollouts to label by completions.")
    ] = 150,
    completions: Annotated[int, typer.Option("--completions", min=1, help="Tries from a step.")] = 8,
    temperature: Annotated[
        float, typer.Option("--temperature", "--temp", min=0.1, max=2, help="Of the rollouts.")
    ] = 0.7,
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", min=16, help="Longest rollout.")] = 400,
    seats: Annotated[int, typer.Option("--seats", min=1, max=256, help="Rollouts side by side.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the rollouts.")] = 0,
    models: options.ModelsFile = None,
    offline: options.Offline = False,
    threads: options.Threads = 0,
) -> None:
    """Train a reward head on a generator's own hidden states.

    Samples solutions, labels their steps by the outcome and a share by completions, fits and calibrates the
    head, and writes it with a model card. It takes hours; interrupted, the same command goes on.
    """
    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.engine.llama import DecodeAborted
    from rsd_cli.rewards.rollouts import Plan

    plan = Plan(samples, completions, temperature=temperature, max_tokens=max_tokens, seed=seed)
    settings = asdict(plan) | {"model": model, "problems": problems.name}
    del settings["samples"]  # more of them are welcome
    folder = Folder(work, settings)
    tasks = read_questions(problems, rows, need_gold=True)
    with Interrupt() as interrupt, ExitStack() as stack, suppress(DecodeAborted):
        studio = _open_studio(
            stack, folder, problems.name, plan, interrupt, model, (models, offline, threads, seats)
        )
        rollouts = studio.sample(tasks)
        labelled = studio.label(tasks, rollouts, label)
    if interrupt():
        raise typer.Exit(interrupt.exit_code)
    _write(output, studio, rollouts, labelled)


class Folder:
    """A directory with the rollouts of one run; it refuses to mix in those of another."""

    def __init__(self, directory: Path, settings: dict[str, Any]) -> None:
        self._directory = directory
        described = directory / "run.json"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if not described.exists():
                described.write_text(json.dumps(settings, indent=1))
        except OSError as error:
            raise UsageError(f"{directory} can't be written: {error.strerror}.") from error
        before = json.loads(described.read_text())
        other = [key for key in settings if before.get(key) != settings[key]]
        if other:
            raise OutputError(
                f"{directory} holds a run with {other[0]} {before.get(other[0])!r}, not {settings[other[0]]!r}.",
                "Name another --work, or the same settings.",
            )

    def read(self, name: str) -> list[Rollout]:
        """The rollouts of a file; a last line that was cut off by an interruption is dropped."""
        from rsd_cli.rewards.rollouts import Rollout

        path = self._directory / name
        if not path.exists():
            return []
        whole, _, rest = path.read_bytes().rpartition(b"\n")
        if rest:
            path.write_bytes(whole + b"\n" if whole else b"")
        return [Rollout.from_json(line) for line in whole.decode().splitlines()]

    def path(self, name: str) -> Path:
        """Where a file of the run lies."""
        return self._directory / name


@dataclass
class Studio:
    """The loaded generator and where its rollouts go."""

    found: FoundModel
    engine: Engine
    prompt: Callable[[str], list[int]]
    folder: Folder
    problems: str
    plan: Plan
    interrupt: Interrupt

    def sample(self, tasks: list[Task]) -> list[Rollout]:
        """All rollouts of the tasks, those of earlier runs included."""
        from rsd_cli.evaluation.grading import is_right
        from rsd_cli.rewards.rollouts import sample

        rollouts = self.folder.read("rollouts.jsonl")
        done = {rollout.key for rollout in rollouts}
        missing = {
            task: todo
            for task in tasks
            if (todo := [n for n in range(self.plan.samples) if f"{task.id}/{n}" not in done])
        }

        def begin(finished: Callable[[Rollout], None]) -> Iterable[Sampled]:
            for task, numbers in missing.items():
                yield sample(self._question(task), numbers, self.plan, is_right, finished)

        total = len(tasks) * self.plan.samples
        return rollouts + self._run("rollouts", begin, total, total - sum(map(len, missing.values())))

    def label(self, tasks: list[Task], rollouts: list[Rollout], most: int) -> list[Rollout]:
        """The first held-out rollouts, one of a problem, with a share of their steps labelled."""
        from rsd_cli.evaluation.grading import is_right
        from rsd_cli.rewards.rollouts import complete
        from rsd_cli.rewards.starter import is_labelled

        by_id = {task.id: task for task in tasks}
        wanted = [r for r in rollouts if r.sample == 0 and r.id in by_id and is_labelled(r.id)]
        wanted = sorted(wanted, key=lambda rollout: rollout.key)[:most]
        labelled = self.folder.read("labelled.jsonl")
        done = {rollout.key for rollout in labelled}
        missing = [rollout for rollout in wanted if rollout.key not in done]

        def begin(finished: Callable[[Rollout], None]) -> Iterable[Sampled]:
            for rollout in missing:
                question = self._question(by_id[rollout.id])
                yield complete(question, rollout, self.plan, is_right, finished)

        return labelled + self._run("labelled", begin, len(wanted), len(wanted) - len(missing))

    def _question(self, task: Task) -> Question:
        from rsd_cli.rewards.rollouts import Question

        return Question(task.id, task.question, task.answer, tuple(self.prompt(task.question)))

    def _run(
        self,
        name: str,
        begin: Callable[[Callable[[Rollout], None]], Iterable[Sampled]],
        total: int,
        done: int,
    ) -> list[Rollout]:
        """Do what is missing, each result on disk before the next; an interruption ends it early."""
        from rsd_cli.display.counting import counting
        from rsd_cli.output import LineFile
        from rsd_cli.rewards.rollouts import drive

        made: list[Rollout] = []
        with (
            closing(LineFile(self.folder.path(f"{name}.jsonl"))) as file,
            counting(name, total, done) as tell,
        ):

            def finished(rollout: Rollout) -> None:
                file.append(rollout.to_json())
                made.append(rollout)
                steps = sum(len(each.steps) for each in made)
                tell(f"{steps} steps, {sum(each.right for each in made) / len(made):.0%} right")

            for _ in drive(self.engine, begin(finished)):
                if self.interrupt():
                    break
        return made


def _open_studio(
    stack: ExitStack,
    folder: Folder,
    problems: str,
    plan: Plan,
    interrupt: Interrupt,
    name: str,
    access: tuple[Path | None, bool, int, int],
) -> Studio:
    from rsd_cli.cli import setup
    from rsd_cli.decoding.prompts import MATHS
    from rsd_cli.engine.context import ContextOptions
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.seats import Engine
    from rsd_cli.engine.templates import ChatTemplate, Message, Renderer

    models, offline, threads, seats = access
    found = setup.find_model(name, setup.Access(models, offline))
    model = Model(found.path, aborted=interrupt)
    stack.callback(model.close)
    engine = Engine(model, ContextOptions(CELLS, seats, threads=threads), interrupt)
    stack.callback(engine.close)
    renderer = Renderer()
    stack.callback(renderer.close)
    template = ChatTemplate(model, renderer)

    def prompt(question: str) -> list[int]:
        return template.encode([Message("system", MATHS), Message("user", question)])

    return Studio(found, engine, prompt, folder, problems, plan, interrupt)


def _write(output: Path, studio: Studio, rollouts: list[Rollout], labelled: list[Rollout]) -> None:
    """Fit, and write the head with its card beside it."""
    from rsd_cli.rewards.card import Variant, model_card
    from rsd_cli.rewards.starter import VARIANTS, as_head, held_out, train_head

    chosen = train_head(rollouts, labelled)
    figures = tuple(held_out(chosen, rollouts, labelled))
    variants = [
        Variant(name, tuple(held_out(train_head(rollouts, labelled, inputs), rollouts, labelled)))
        for name, inputs in VARIANTS.items()
    ]
    plan, found = studio.plan, studio.found
    facts = {
        "base": f"{found.name}, sha256 {found.sha256 or 'unknown'}",
        "rollouts": f"{len(rollouts):,} of {len({rollout.id for rollout in rollouts}):,} problems of "
        f"{studio.problems}, temperature {plan.temperature:g}, "
        f"at most {plan.max_tokens} tokens, seed {plan.seed}",
        "steps": f"{sum(len(rollout.steps) for rollout in rollouts):,}, of which {chosen.n_training:,} to train on",
        "right": f"{sum(rollout.right for rollout in rollouts) / len(rollouts):.0%} of the rollouts",
        "completions": f"{len(labelled):,} held-out rollouts, a step in {1 / plan.labelled:.0f}, "
        f"{plan.completions} from each; good if one of them reaches the answer",
        "fit": f"{chosen.chosen.name}, chosen by cross-validated AUC over problems ({chosen.chosen.auc:.3f})",
        "calibration": f"Platt's scaling on {chosen.n_calibration:,} steps",
        "inputs": ", ".join(chosen.inputs),
    }
    size = len(rollouts[0].steps[0].hidden)
    as_head(chosen, size, found.name, found.sha256 or "", facts).save(output)
    card = output.with_suffix(".md")
    card.write_text(model_card(output.stem, facts, figures, variants), "utf-8")
    for row in figures:
        typer.echo(
            f"{row.label}: AUC {row.auc:.3f}, calibration error {row.calibration_error:.3f} on {row.steps:,} steps",
            err=True,
        )
    typer.echo(str(output))
