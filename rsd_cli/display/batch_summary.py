"""What a batch came to, on stderr once it is over. Counts nothing itself."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from rsd_cli.batch.tally import Tally

LABEL = 10  # cells beside which the summary stands


def show_summary(console: Console, tally: Tally, *, reproducible: bool) -> None:
    """What a batch came to; on a terminal folded beside its labels."""
    for label, text in _summary(tally, reproducible=reproducible):
        told = f"{label:{LABEL}}{text}"
        if console.is_terminal:
            told = textwrap.fill(told, console.width, subsequent_indent=" " * LABEL, break_on_hyphens=False)
        shown = Text(told)
        shown.stylize("dim", 0, LABEL)
        console.print(shown, soft_wrap=True)


def _odd(tally: Tally) -> str:
    odd = {
        "with an answer cut short": tally.truncated,
        "with an empty one": tally.empty,
        "without a final one": tally.unanswered,
    }
    return ", ".join(f"{count:,} {what}" for what, count in odd.items() if count)


def _right(tally: Tally) -> str:
    share = f" ({tally.right / tally.graded:.0%})" if tally.graded else ""
    told = f"{tally.right:,} of {tally.graded:,} with a known answer{share}"
    more = (
        f"; {tally.ungraded:,} with formulas not compared, which takes pip install --upgrade 'rsd-cli[eval]'"
    )
    return told + (more if tally.ungraded else "")


def _judged(tally: Tally) -> Iterator[tuple[str, str]]:
    steps = tally.steps
    if steps.judged:
        yield "accepted", f"{steps.accepted / steps.judged:.0%} of the draft's steps, {_rewards(tally)}"
    elif steps.rewarded:
        yield "judged", _rewards(tally)


def _rewards(tally: Tally) -> str:
    steps = tally.steps
    if not steps.rewarded:
        return "without any reward"
    missing = f", {steps.unrewarded:,} without a reward" if steps.unrewarded else ""
    return f"mean reward {steps.rewards / steps.rewarded:.2f}{missing}"


def _summary(tally: Tally, *, reproducible: bool) -> Iterator[tuple[str, str]]:
    summary = tally.summary()
    yield "rows", _rows(tally)
    if not tally.counted:
        return
    if odd := _odd(tally):
        yield "of these", odd
    if tally.graded or tally.ungraded:
        yield "right", _right(tally)
    yield from _judged(tally)
    if tally.steps.tokens:
        of_steps, of_tokens = summary["target_share_of_steps"], summary["target_share_of_tokens"]
        yield "by target", f"{of_steps:.0%} of steps, {of_tokens:.0%} of tokens"
    if summary["compute_vs_target_only"]:
        yield (
            "compute",
            f"{summary['compute_vs_target_only']:.0%} of what the target alone needs for these texts",
        )
    for role, used in tally.usage.items():
        if used.decoded:
            waste = f", {used.discarded:,} discarded" if used.discarded else ""
            yield (
                f"{role}",
                f"{used.generated:,} tokens written, {used.fed:,} read, {used.reused:,} reused{waste}",
            )
    if not tally.answered:
        return
    yield "time", _time(tally, summary)
    verdict = tally.verdict()
    for sentence in verdict.sentences if verdict else ():
        yield "verdict", sentence
    yield (
        "promised",
        "the same bytes in every such run on this machine"
        if reproducible
        else "each row once; texts can differ a little with the rows beside them (--reproducible: never)",
    )


def _time(tally: Tally, summary: dict[str, Any]) -> str:
    times = [
        f"{role} {clock((spent.prompt_ms + spent.decode_ms) / 1000)}"
        for role, spent in tally.times.items()
        if spent.prompt_ms + spent.decode_ms
    ]
    speed = f"{summary['rows_per_second']:.2f} rows/s, {summary['tokens_per_second']:.0f} tokens/s"
    return f"{clock(summary['seconds'])} ({', '.join(times)}); {speed}"


def _rows(tally: Tally) -> str:
    counts = {
        "failed": tally.failed,
        "done before": tally.skipped - tally.failed_before,
        "failed before": tally.failed_before,
        "left": tally.left or 0,
    }
    shown = [f"{tally.answered:,} answered"]
    shown += [f"{count:,} {what}" for what, count in counts.items() if count]
    errors = ", ".join(f"{count:,} {code}" for code, count in sorted(tally.errors.items()))
    return ", ".join(shown) + (f" ({errors})" if errors else "")


def clock(seconds: float) -> str:
    """Write a time in the form of a clock, under a minute in seconds."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
