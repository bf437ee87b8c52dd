"""An evaluation's table as columns of text, most important first to stay; and its Markdown. Knows no terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsd_cli.evaluation.costs import Compute
from rsd_cli.evaluation.runs import flops_of, relative_compute
from rsd_cli.records import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rsd_cli.evaluation.accounts import Account, Budget
    from rsd_cli.evaluation.runs import Evaluation, TaskRun
    from rsd_cli.evaluation.significance import Difference

TERA = 1e12
DETAIL = 10  # the rank from which on a column tells what stands elsewhere in a report as well


@dataclass(frozen=True)
class Column:
    """A heading and a cell for each strategy; where there is no room, the columns with the lowest `rank` stay."""

    title: str
    cells: tuple[str, ...]
    rank: int
    is_text: bool = False


def columns(evaluation: Evaluation) -> list[Column]:
    """The table of all tasks, a row for each strategy."""
    accounts = [account for run in evaluation.tasks for account in run.accounts]
    task_rank = 1 if len(evaluation.tasks) > 1 else 8
    shown = [
        Column("Task", tuple(account.task for account in accounts), task_rank, is_text=True),
        Column("n", tuple(str(account.n) for account in accounts), 6),
        Column("Strategy", tuple(account.strategy for account in accounts), 0, is_text=True),
        Column("Accuracy", tuple(_accuracy(account) for account in accounts), 0),
        Column("Δ to first [95%]", tuple(_difference(account) for account in accounts), 3),
        Column("p", tuple(_p(account.difference) for account in accounts), 7),
        Column("target", tuple(_percent(account.authorship.target_share) for account in accounts), 4),
        Column("accepted", tuple(_percent(account.authorship.acceptance) for account in accounts), 9),
        Column(
            "draft alone", tuple(_percent(account.authorship.draft_alone) for account in accounts), DETAIL + 1
        ),
        Column("tokens/question", tuple(_written(account) for account in accounts), DETAIL),
        Column("compute", tuple(_computes(evaluation, projecting=False)), 1),
        Column("s/question", tuple(_seconds(evaluation)), 2),
        Column("remarks", tuple(odd_ends(account) for account in accounts), 5, is_text=True),
    ]
    if evaluation.project:
        shown.insert(11, Column("projected", tuple(_computes(evaluation, projecting=True)), 2))
    return shown


def markdown(evaluation: Evaluation) -> str:
    """The table, tokens by role, the budgets and the verdicts as Markdown."""
    shown = columns(evaluation)
    lines = [
        _row([column.title for column in shown]),
        _row(["---" if column.is_text else "---:" for column in shown]),
        *(_row([column.cells[i] for column in shown]) for i in range(len(shown[0].cells))),
    ]
    lines += [f"\n{note}" for note in notes(evaluation)]
    for details in (role_lines, budget_lines):
        told = [line for run in evaluation.tasks for line in details(run)]
        lines += ["", "```", *told, "```"] if told else []
    lines += [f"\n**{task}** {sentence}" for task, sentence in verdicts(evaluation)]
    return "\n".join(lines) + "\n"


def notes(evaluation: Evaluation) -> Iterator[str]:
    """What must be known to read the table."""
    for task, questions in evaluation.partial.items():
        yield f"Not comparable with the whole of {task}: only {questions} questions."
    yield (
        "Compute: 2 x parameters x tokens of all models with the PRM, as a multiple of the target's alone "
        "(TFLOPs a question where that did not run)."
    )
    yield from dict.fromkeys(
        f"{each.name} chooses among what {each.drawn_by} drew; its cost is that of drawing the same answers."
        for run in evaluation.tasks
        for each in run.strategies
        if each.drawn_by
    )
    if not all(run.has_wall_seconds for run in evaluation.tasks):
        yield "Seconds are those in the models, a shared decode split by the rows' tokens."
    if evaluation.project:
        sizes = ", ".join(f"{role} {size / 1e9:g}B" for role, size in evaluation.project.items())
        yield f"Projection, not measured: the same tokens with models of other sizes ({sizes})."
        if _judged_for_nothing(evaluation):
            yield (
                "No PRM read a token here (rewards are the draft's own states or probabilities), so its size costs "
                "nothing in the projection."
            )


def _judged_for_nothing(evaluation: Evaluation) -> bool:
    """Whether there are rewards, and no tokens that a PRM decoded for them."""
    costs = [account.cost for run in evaluation.tasks for account in run.accounts]
    read = any(cost.tokens.get("prm", Usage()).decoded for cost in costs)
    return not read and any(cost.judged for cost in costs)


def role_lines(run: TaskRun) -> Iterator[str]:
    """What each role of each strategy wrote and read for all questions, in tokens and in compute."""
    for account in run.accounts:
        for role, used in account.cost.tokens.items():
            if used.decoded:
                flops = account.cost.flops.get(role, Compute())
                yield (
                    f"{run.task} {account.strategy}, {role}: {used.generated:,} tokens written, "
                    f"{used.discarded:,} discarded, {used.fed:,} read, {used.reused:,} reused; "
                    f"{flops.writing / TERA:,.2f} TFLOPs writing, {flops.reading / TERA:,.2f} reading"
                )


def budget_lines(run: TaskRun) -> Iterator[str]:
    """Accuracy at 1, 2, 4 … n answers from the same samples, a heading for each strategy and way to choose."""
    for account in run.accounts:
        for way in dict.fromkeys(budget.choice for budget in account.budgets):
            yield f"{run.task} {account.strategy}, {way}"
            yield from (budget_line(each) for each in account.budgets if each.choice == way)


def budget_line(budget: Budget) -> str:
    """One budget, as its_hub prints it, with its compute and its difference to the first strategy."""
    width, found = len(str(budget.of)), budget.difference
    error = "" if budget.stderr is None else f"±{budget.stderr:.4f} "
    return (
        f"budget={budget.n:2}: accuracy={budget.accuracy:.4f} {error}({budget.right:{width}}/{budget.of}), "
        f"{budget.cost.total_flops / max(1, budget.answered) / TERA:.2f} TFLOPs a question"
        + (f", {interval(found)} to first, p {_p(found)}" if found else "")
    )


def verdicts(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """Each task's verdict, a sentence or two at a time."""
    for run in evaluation.tasks:
        verdict = run.verdict()
        for sentence in verdict.sentences if verdict else ():
            yield run.task, sentence


def interval(found: Difference) -> str:
    """A difference of accuracies in points, with its 95% interval."""
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def odd_ends(account: Account) -> str:
    """What the accuracy does not show: answers cut short and others that could not be right, steps unrewarded."""
    odd: list[tuple[str, int]] = [("cut short", account.cut_short)]
    odd += [(name, n) for name, n in account.outcomes.items() if name not in ("right", "wrong", "truncated")]
    odd.append(
        ("step without a reward" if account.unrewarded == 1 else "steps without a reward", account.unrewarded)
    )
    return ", ".join(f"{n} {name}" for name, n in odd if n)


def seconds_of(account: Account, *, wall: bool) -> float:
    """What a strategy took: by the clock on the wall, or in its models."""
    return account.wall_seconds if wall and account.wall_seconds is not None else account.cost.seconds


def _computes(evaluation: Evaluation, *, projecting: bool) -> Iterator[str]:
    project = evaluation.project if projecting else {}
    for run in evaluation.tasks:
        accounts = run.accounts
        relative = relative_compute(accounts, project)
        for account in accounts:
            if account.strategy in relative:
                yield f"{relative[account.strategy]:.2f}x"
            elif account.answered:
                yield f"{flops_of(account.cost, project) / account.answered / TERA:.2f} T"
            else:
                yield ""


def _accuracy(account: Account) -> str:
    error = "" if account.stderr is None else f" ±{100 * account.stderr:.1f}"
    return f"{account.accuracy:.1%}{error}"


def _difference(account: Account) -> str:
    return interval(account.difference) if account.difference else ""


def _p(found: Difference | None) -> str:
    if found is None:
        return ""
    return "<.001" if found.p < 0.001 else f"{found.p:.3f}".lstrip("0") if found.p < 1 else "1"


def _written(account: Account) -> str:
    """Tokens by all models for a question."""
    written = sum(used.generated for used in account.cost.tokens.values())
    return f"{written / account.answered:,.0f}" if account.answered else ""


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _seconds(evaluation: Evaluation) -> Iterator[str]:
    for run in evaluation.tasks:
        for account in run.accounts:
            seconds = seconds_of(account, wall=run.has_wall_seconds)
            yield f"{seconds / account.answered:.1f}" if account.answered else ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
