"""`rsd ask`: one question, answered step by step before the user's eyes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsd_cli.cli import options

if TYPE_CHECKING:
    from rsd_cli.cli.conversing import Talk


def ask(
    question: Annotated[str | None, typer.Argument(help="The question; - reads standard input.")] = None,
    trio: options.TalkTrio = None,
    draft: options.Draft = None,
    target: options.Target = None,
    prm: options.Prm = None,
    strategy: options.TalkStrategy = None,
    speculative: options.Speculative = None,
    threshold: options.Threshold = None,
    weighting: options.Weighting = None,
    target_share: options.TargetShare = None,
    share_per: options.SharePer = None,
    beta: options.Beta = None,
    aggregate: options.Aggregate = None,
    max_tokens: options.TalkMaxTokens = None,
    max_steps: options.TalkMaxSteps = None,
    temperature: options.Temperature = None,
    seed: options.TalkSeed = None,
    system: options.System = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as one JSON object.")] = False,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE", help="Append the record to a JSONL file.")
    ] = None,
    continues: Annotated[
        bool,
        typer.Option("--continue", "-c", help="Ask within the last conversation, rsd chat's or rsd ask's."),
    ] = False,
    goes_on: Annotated[bool, typer.Option("--chat", help="Go on as rsd chat after the answer.")] = False,
    no_log: options.NoLog = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but the answer.")] = False,
    no_color: options.NoColor = False,
    offline: options.Offline = False,
    no_verify: options.NoVerify = False,
    yes: options.Yes = False,
    models: options.ModelsFile = None,
    threads: options.Threads = 0,
    gpu_layers: options.GpuLayers = "",
    ctx: options.Ctx = 0,
    batch_size: options.BatchSize = 512,
    kv_type: options.KvType = "f16",
) -> None:
    """Answer one question.

    The draft writes each step, the PRM scores it, and the target rewrites what scores below the threshold.
    On a terminal the steps appear as they are written; in a pipe only the answer is printed. Questions and answers
    are kept as conversations that -c and rsd chat --resume go on with.
    """
    from rsd_cli.cli import notes
    from rsd_cli.cli.question import read_question

    crashed = (notes.read() or {}).get("chat")  # the chat behind an earlier answer of this command
    notes.withdraw()
    text = "" if crashed else read_question(question)  # standard input was read by then

    from rsd_cli.cli.method import Wishes, method_of
    from rsd_cli.output import LineFile

    wishes = Wishes(strategy, threshold, weighting, target_share, share_per, beta, aggregate, speculative)
    if not continues:
        method_of(wishes)  # refuses before a trace is begun; what a conversation adds is known later
    traced = LineFile(trace) if trace else None

    from rsd_cli.cli import setup
    from rsd_cli.cli.chat import converse
    from rsd_cli.cli.opening import Given, Opening, now, opened
    from rsd_cli.cli.screen import Screen
    from rsd_cli.cli.shape import Shape, check_kv_type, parse_layers

    started = now()
    given = Given(trio, draft, target, prm, wishes, max_tokens, max_steps, temperature, seed, system)
    wanted = Opening(
        Given() if crashed else given,  # what was said since then counts, and the journal knows all of it
        setup.Access(models, offline, verify=not no_verify, yes=yes, quiet=quiet, color=not no_color),
        Shape(ctx, 1, batch_size, threads, check_kv_type(kv_type), parse_layers(gpu_layers)),
        Screen(as_json, quiet, not no_color),
        goes_on or continues,
        crashed or ("last" if continues else None),
        journals=not no_log,
    )
    with opened(wanted, started) as (talk, began):
        if crashed:
            converse(talk, crashed=True)
            return
        record = talk.ask(text, began)
        try:
            if traced:
                traced.append(record.to_json())
                traced.close()
        finally:  # a trace that can't be written costs nobody the answer
            talk.screen.deliver(record)
            _say_what_is_not_kept(talk)
        if goes_on and not talk.interrupt():
            talk.screen = replace(talk.screen, is_brief=True)
            converse(talk)
    if talk.interrupt():
        raise typer.Exit(talk.interrupt.exit_code)


def _say_what_is_not_kept(talk: Talk) -> None:
    """Without it the next -c would go on with an older conversation, and nobody would know why."""
    failure = talk.journal.failure
    if failure and not talk.screen.quiet:
        from rsd_cli.display.chat import notice

        talk.journal.failure = None  # rsd chat says it otherwise, when it goes on
        notice(
            talk.screen.console,
            f"This conversation is not kept on disk, so -c can't go on with it: {failure.message}",
        )
