"""A task's part of the report: verdict, pictures and tables as HTML. Texts are escaped here."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

from rsd_cli.evaluation.report.bars import rewards_of, rewards_picture, share_picture, target_share_along
from rsd_cli.evaluation.report.scatter import NARROW, WIDE, kind_of, scatter
from rsd_cli.evaluation.table import DETAIL, TERA, budget_lines, columns, notes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rsd_cli.evaluation.accounts import Account
    from rsd_cli.evaluation.runs import Evaluation, TaskRun

LEGEND = {
    "draft": "the draft alone",
    "target": "the target alone",
    "mixed": "both, by rewards",
    "other": "a choice among several answers (dotted: with fewer of them)",
}
FATES = (
    '<ul class="legend"><li><span class="swatch draft"></span>accepted</li>'
    '<li><span class="swatch rejected"></span>rejected</li></ul>'
)
AUTHORS = (
    *("Strategy", "accepted steps", "accepted tokens", "tokens by target", "no step by target"),
    *("right without the target", "judged tokens"),
)
COSTS = (
    *("Strategy", "Role", "written", "discarded", "read", "reused", "writing TFLOPs", "reading TFLOPs"),
    *("writing s", "reading s"),
)


def task_section(run: TaskRun, evaluation: Evaluation) -> str:
    """Everything about one task but its single problems."""
    verdict = run.verdict()
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in verdict.sentences) if verdict else ""
    return (
        f'<section><h2>{escape(run.task)}</h2><div class="verdict">{said}</div>{_figure(run)}'
        f"{_main_table(replace(evaluation, tasks=(run,)))}{_details(run)}{_strategy_pictures(run)}</section>"
    )


def _figure(run: TaskRun) -> str:
    """The scatter in two widths, if anything was answered."""
    if not any(account.answered for account in run.accounts):
        return ""
    legend = "".join(f'<li><span class="swatch {kind}"></span>{text}</li>' for kind, text in LEGEND.items())
    return (
        "<figure><figcaption>Accuracy against compute, with standard errors. "
        "Dashed: what choosing each question's author at random would give.</figcaption>"
        f'<div class="wide">{scatter(run, WIDE)}</div><div class="narrow">{scatter(run, NARROW)}</div>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def _main_table(evaluation: Evaluation) -> str:
    shown = [column for column in columns(evaluation) if column.rank < DETAIL]
    rows = [[column.cells[i] for column in shown] for i in range(len(shown[0].cells))]
    said = "".join(f"<p>{escape(note)}</p>" for note in notes(evaluation))
    return f'{_table([column.title for column in shown], rows)}<div class="quiet">{said}</div>'


def _details(run: TaskRun) -> str:
    """Who wrote, what it cost by role, and budgets, folded away."""
    folded = _folded("Who wrote", _table(AUTHORS, map(_authors, run.accounts)))
    costs = [row for account in run.accounts for row in _costs(account)]
    folded += _folded("Tokens, compute and time by role", _table(COSTS, costs))
    budgets = "\n".join(budget_lines(run))
    return folded + (
        _folded("Budgets from the same samples", f"<pre>{escape(budgets)}</pre>") if budgets else ""
    )


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>{content}</details>"


def _authors(account: Account) -> list[str]:
    own = account.authorship
    shares = (
        own.acceptance,
        own.acceptance_by_tokens,
        own.target_share,
        own.draft_alone,
        own.draft_alone_right,
    )
    told = ("" if share is None else f"{share:.1%}" for share in shares)
    return [account.strategy, *told, f"{account.cost.judged:,}"]


def _costs(account: Account) -> Iterator[list[str]]:
    for role, used in account.cost.tokens.items():
        if not used.decoded:
            continue
        flops, spent = account.cost.flops.get(role), account.cost.times.get(role)
        yield [
            account.strategy,
            role,
            *(f"{count:,}" for count in (used.generated, used.discarded, used.fed, used.reused)),
            *(f"{each / TERA:,.2f}" for each in ((flops.writing, flops.reading) if flops else (0.0, 0.0))),
            *(f"{ms / 1000:,.1f}" for ms in ((spent.decode_ms, spent.prompt_ms) if spent else (0.0, 0.0))),
        ]


def _strategy_pictures(run: TaskRun) -> str:
    """Of strategies that both models write: rewards, and the target's share along the solution."""
    rewards, shares = "", ""
    for each in run.strategies:
        if kind_of(each) != "mixed":
            continue
        found = rewards_of(each)
        if any(found.accepted) or any(found.rejected):
            told = f"{sum(found.accepted):,} accepted, {sum(found.rejected):,} rejected"
            rewards += _small(each.name, told, rewards_picture(found))
        shares += _small(each.name, "share of tokens by the target", share_picture(target_share_along(each)))
    first = _gallery(f"<h3>Rewards of the draft's steps</h3>{FATES}", rewards)
    return first + _gallery("<h3>Where the target writes</h3>", shares)


def _gallery(head: str, pictures: str) -> str:
    return f'{head}<div class="grid-of">{pictures}</div>' if pictures else ""


def _small(name: str, told: str, picture: str) -> str:
    return f"<figure><figcaption>{escape(name)} <span>{told}</span></figcaption>{picture}</figure>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Names stand on the left, figures on the right, which the style sheet tells by their look."""
    titles = "".join(f"<th{_side(title)}>{escape(title)}</th>" for title in head)
    body = "".join(
        "<tr>"
        + "".join(f"<td{_side(title)}>{escape(cell)}</td>" for title, cell in zip(head, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _side(title: str) -> str:
    return ' class="text"' if title in ("Task", "Strategy", "Role", "remarks") else ""
