"""`rsd prm train`: makes a head on a generator's own hidden states, from nothing but checkable problems."""

from __future__ import annotations

import shlex
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsd_cli.cli import options
from rsd_cli.cli.questions import read_questions, with_formulas
from rsd_cli.cli.train_problems import FEWEST, cells, check_outcomes, check_problems, fitting_questions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.cli.questions import GoldQuestion
    from rsd_cli.cli.train_folder import Folder
    from rsd_cli.cli.warm import FoundModel
    from rsd_cli.engine.seats import Engine
    from rsd_cli.evaluation.grader import Grader
    from rsd_cli.rewards.rollouts import Plan, Question, Rollout, Sampled
    from rsd_cli.rewards.starter import Trained

N_BATCH = 512


def train(
    problems: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSONL with question and answer: a number, words or a formula; GSM8K's #### is known.",
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
        int, typer.Option("--rows", min=FEWEST, help="Problems to sample from, from the top.")
    ] = 1000,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Solutions of each problem.")] = 2,
    label: Annotated[
        int,
        typer.Option(
            "--label", min=0, help="Rollouts to label by completions, to calibrate and to report on."
        ),
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
    yes: options.Yes = False,
    threads: options.Threads = 0,
) -> None:
    """Train a reward head on a generator's own hidden states.

    Samples solutions, labels their steps by the outcome and a share by completions, fits and calibrates the
    head, and writes it with a model card. It takes hours; interrupted, the same command goes on.
    """
    from rsd_cli.cli import setup
    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.cli.train_folder import FORMULAS, Folder, check_output
    from rsd_cli.engine.llama import DecodeAborted
    from rsd_cli.evaluation.grader import need_maths
    from rsd_cli.rewards.rollouts import Plan

    check_output(output)
    tasks = read_questions(problems, rows, need_gold=True)
    check_problems([task.id for task in tasks])
    plan = Plan(samples, completions, temperature=temperature, max_tokens=max_tokens, seed=seed)
    settings = asdict(plan) | {"model": model, "problems": problems.name}
    del settings["samples"]  # more of them are welcome
    # Labels by other rules, as of earlier versions, are not mixed in.
    settings["cut_short"] = "right by a box alone"
    if with_formulas(tasks):
        need_maths("maths")
        settings[FORMULAS] = "math-verify"
    folder = Folder(work)
    folder.check(settings)
    access = setup.Access(models, offline, yes=yes)
    found, base = setup.find_hashed_model(model, access), setup.lasting_name(model, access)
    folder.begin(settings | {"model_sha256": found.sha256})
    with Interrupt() as interrupt, ExitStack() as stack, suppress(DecodeAborted):
        studio = _open_studio(stack, found, tasks, folder, plan, interrupt, Room(seats, threads))
        rollouts = studio.sample()
        if interrupt():
            raise typer.Exit(interrupt.exit_code)
        check_outcomes(rollouts)
        labelled = studio.label(rollouts, label)
    if interrupt():
        raise typer.Exit(interrupt.exit_code)
    command = ["rsd", "prm", "train", problems.name, "--work", work.name, "-o", output.name, "--model", model]
    command += ["--rows", f"{rows}", "--samples", f"{samples}", "--label", f"{label}"]
    command += ["--completions", f"{completions}", "--temperature", f"{temperature:g}"]
    command += ["--max-tokens", f"{max_tokens}", "--seed", f"{seed}"]
    _write(output, studio, rollouts, labelled, base, {"command": f"`{shlex.join(command)}`"})


@dataclass(frozen=True)
class Room:
    """What rollouts are made with, and do not depend on."""

    seats: int
    threads: int


@dataclass
class Studio:
    """The loaded generator, what it is asked, and where its rollouts go."""

    found: FoundModel
    engine: Engine
    grader: Grader
    questions: list[Question]
    folder: Folder
    plan: Plan
    interrupt: Interrupt

    def sample(self) -> list[Rollout]:
        """The rollouts of all questions, those of earlier runs included, in an order that seats do not change."""
        from rsd_cli.cli.train_folder import ROLLOUTS
        from rsd_cli.rewards.rollouts import sample

        keys = {f"{question.id}/{n}" for question in self.questions for n in range(self.plan.samples)}
        rollouts = self.folder.kept(ROLLOUTS, self.questions, keys)
        done = {rollout.key for rollout in rollouts}
        missing = {
            question: todo
            for question in self.questions
            if (todo := [n for n in range(self.plan.samples) if f"{question.id}/{n}" not in done])
        }

        def begin(finished: Callable[[Rollout], None]) -> Iterable[Sampled]:
            for question, numbers in missing.items():
                yield sample(question, numbers, self.plan, self.grader.is_right, finished)

        rollouts += self._run(ROLLOUTS, begin, len(keys), len(done))
        return self._in_order(rollouts)

    def label(self, rollouts: list[Rollout], most: int) -> list[Rollout]:
        """The first rollouts that are to be labelled, one of a problem, with a share of their steps labelled."""
        from rsd_cli.rewards.rollouts import complete
        from rsd_cli.rewards.starter import is_labelled

        by_id = {question.id: question for question in self.questions}
        wanted = [r for r in rollouts if r.sample == 0 and is_labelled(r.id)][:most]
        keys = {rollout.key for rollout in wanted}
        labelled = self.folder.kept("labelled", self.questions, keys)
        done = {rollout.key for rollout in labelled}

        def begin(finished: Callable[[Rollout], None]) -> Iterable[Sampled]:
            for rollout in wanted:
                if rollout.key not in done:
                    question = by_id[rollout.id]
                    yield complete(question, rollout, self.plan, self.grader.is_right, finished)

        labelled += self._run("labelled", begin, len(keys), len(done))
        return self._in_order(labelled)

    def _in_order(self, rollouts: list[Rollout]) -> list[Rollout]:
        """As their problems stand in the file: more rows come behind, and the first rollouts stay the first."""
        places = {question.id: place for place, question in enumerate(self.questions)}
        return sorted(rollouts, key=lambda rollout: (places[rollout.id], rollout.sample))

    def _run(
        self,
        name: str,
        begin: Callable[[Callable[[Rollout], None]], Iterable[Sampled]],
        total: int,
        done: int,
    ) -> list[Rollout]:
        """Do what is missing, each result on disk before the next; an interruption ends it early."""
        from rsd_cli.display.counting import counting
        from rsd_cli.rewards.rollouts import drive

        made: list[Rollout] = []
        with (
            closing(self.folder.open(name)) as file,
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
    found: FoundModel,
    tasks: list[GoldQuestion],
    folder: Folder,
    plan: Plan,
    interrupt: Interrupt,
    room: Room,
) -> Studio:
    from rsd_cli.engine.context import ContextOptions
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.seats import Engine
    from rsd_cli.evaluation.grader import Grader

    model = Model(found.path, aborted=interrupt)
    stack.callback(model.close)
    questions = fitting_questions(model, tasks, plan)
    n_ctx = max(cells(question, plan) for question in questions)
    options = ContextOptions(n_ctx, room.seats, min(N_BATCH, n_ctx), threads=room.threads)
    engine = Engine(model, options, interrupt)
    stack.callback(engine.close)
    return Studio(found, engine, stack.enter_context(Grader()), questions, folder, plan, interrupt)


def _write(
    output: Path,
    studio: Studio,
    rollouts: list[Rollout],
    labelled: list[Rollout],
    base: str,
    command: dict[str, str],
) -> None:
    """Fit, and write the head, which looks for its `base` by that name, with its card beside it."""
    from rsd_cli.cli.train_folder import plain, title, write_card
    from rsd_cli.rewards.card import Variant, model_card
    from rsd_cli.rewards.starter import as_head, held_out, train_head, variants

    trained = train_head(rollouts, labelled)
    figures = tuple(held_out(trained, rollouts, labelled))
    others = [
        Variant(name, tuple(held_out(train_head(rollouts, labelled, inputs), rollouts, labelled)))
        for name, inputs in variants(rollouts).items()
    ]
    told = command | _facts(studio, rollouts, labelled, trained)
    facts = {key: plain(value) for key, value in told.items()}
    size, n_vocab = len(rollouts[0].steps[0].hidden), studio.engine.model.n_vocab
    found = studio.found
    as_head(trained, size, n_vocab, plain(base), found.sha256 or "", facts).save(output)
    write_card(output, model_card(title(output), facts, figures, others))
    for row in figures:
        typer.echo(
            f"{row.label}: AUC {row.auc:.3f}, calibration error {row.calibration_error:.3f} on {row.steps:,} steps",
            err=True,
        )
    typer.echo(f"Use it with --prm {output}; `rsd prm calibrate` with the same finds a threshold.", err=True)
    typer.echo(str(output))


def _facts(
    studio: Studio, rollouts: list[Rollout], labelled: list[Rollout], trained: Trained
) -> dict[str, str]:
    """What head and card say of how the head was made."""
    plan, found, chosen = studio.plan, studio.found, trained.chosen
    return {
        "base": f"{found.name}, sha256 {found.sha256 or 'unknown'}",
        "rollouts": f"{len(rollouts):,} of {len({rollout.id for rollout in rollouts}):,} problems, "
        f"temperature {plan.temperature:g}, at most {plan.max_tokens} tokens, seed {plan.seed}",
        "steps": f"{sum(len(rollout.steps) for rollout in rollouts):,}, of which {trained.n_training:,} to train on",
        "right": f"{sum(rollout.right for rollout in rollouts) / len(rollouts):.0%} of the rollouts",
        "completions": f"{len(labelled):,} rollouts, a step in {1 / plan.labelled:.0f}, "
        f"{plan.completions} from each; good if one of them reaches the answer",
        "fit": f"{chosen.name}, chosen by cross-validated AUC over problems ({chosen.auc:.3f})",
        "calibration": f"Platt's scaling on {trained.n_calibration:,} steps",
        "inputs": ", ".join(trained.inputs),
    }
