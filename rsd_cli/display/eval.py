"""An evaluation and a comparison of two on a terminal. What stands in the table is `evaluation.table`'s business."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from rsd_cli.display.consoles import literal
from rsd_cli.display.sanitise import visible
from rsd_cli.evaluation.table import budget_lines, columns, interval, notes, odd_ends, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, JustifyMethod

    from rsd_cli.evaluation.comparing import Comparison, Flip, Pair
    from rsd_cli.evaluation.runs import Evaluation
    from rsd_cli.evaluation.table import Column

GAP = 2  # between columns
ODD = "remarks"
FLIPS = 10  # flipped questions that are shown of a pair


def show_evaluation(console: Console, evaluation: Evaluation) -> None:
    """The table as wide as the console allows, notes, budgets and verdicts."""
    shown = columns(evaluation)
    kept = _fitting(shown, console.width)
    console.print(_table(kept))
    left_out = [column.title for column in shown if column not in kept]
    for note in notes(evaluation):
        console.print(Text(note, style="dim"))
    if left_out:
        console.print(Text(f"No room for {', '.join(left_out)}; all of it is in results.md.", style="dim"))
    if ODD in left_out:
        for line in _odd_lines(evaluation):
            console.print(line)
    for run in evaluation.tasks:
        for budget in budget_lines(run):
            console.print(literal(budget), soft_wrap=True)
    for task, sentence in verdicts(evaluation):
        console.print(Text.assemble((visible(task), "bold"), " ", sentence))


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Settings that differ, each pair's difference with its flipped questions, and what has no partner."""
    for setting in comparison.settings:
        console.print(literal(f"{setting.name}: {setting.first} → {setting.second}"), soft_wrap=True)
    for pair in comparison.pairs:
        name = pair.first if pair.first == pair.second else f"{pair.first} → {pair.second}"
        console.print(Text.assemble((visible(f"{pair.task} {name}"), "bold"), "  ", _said(pair)))
        for flip in pair.flips[:FLIPS]:
            console.print(_flip_line(flip, console.width))
        if len(pair.flips) > FLIPS:
            console.print(Text(f"  … and {len(pair.flips) - FLIPS} more", style="dim"))
    for names, which in ((comparison.only_first, "first"), (comparison.only_second, "second")):
        if names:
            console.print(Text.assemble((f"only in the {which}: ", "dim"), literal(", ".join(names))))


def _said(pair: Pair) -> str:
    found = pair.difference
    if found is None:
        return "no question in common"
    of = "" if found.n == pair.first_n == pair.second_n else f" of {pair.first_n} and {pair.second_n}"
    said = f"{interval(found)}, p {found.p:.3f}, n {found.n}{of}"
    said += f", {found.gained} gained, {found.lost} lost"
    more = ((pair.compute, "compute"), (pair.seconds, "time"))
    return said + "".join(f", {times:.2f}x {what}" for times, what in more if times is not None)


def _flip_line(flip: Flip, width: int) -> Text:
    """A question with both answers, in one line."""
    sign = ("+", "green") if flip.gained else ("-", "red")
    answers = f"{flip.first or 'none'} → {flip.second or 'none'} (gold {flip.target})"
    question = " ".join(visible(flip.question).split())
    line = Text.assemble(
        "  ", sign, f" {flip.doc_id:>4}  ", " ".join(visible(answers).split()), "  ", (question, "dim")
    )
    line.truncate(width, overflow="ellipsis")
    return line


def _fitting(shown: Sequence[Column], width: int) -> list[Column]:
    """As many columns as fit, the most important ones first."""
    kept: list[Column] = []
    for column in sorted(shown, key=lambda column: column.rank):
        if not column.rank or sum(map(_width, [*kept, column])) <= width + GAP:
            kept.append(column)
    return [column for column in shown if column in kept]


def _odd_lines(evaluation: Evaluation) -> Iterator[Text]:
    """What the accuracy does not show must not fall to a narrow terminal."""
    for run in evaluation.tasks:
        for account in run.accounts:
            if odd := odd_ends(account):
                yield Text.assemble((f"{ODD}: ", "dim"), literal(f"{run.task} {account.strategy} "), odd)


def _width(column: Column) -> int:
    return max(map(cell_len, (column.title, *column.cells))) + GAP


def _table(shown: Sequence[Column]) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in shown:
        justify: JustifyMethod = "left" if column.is_text else "right"
        table.add_column(Text(column.title), justify=justify, overflow="fold")
    for i in range(len(shown[0].cells)):
        table.add_row(*(literal(column.cells[i]) for column in shown))
    return table
