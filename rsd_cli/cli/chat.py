"""`rsd chat`: a conversation at the terminal, or turns from a pipe."""

from __future__ import annotations

import io
import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from rsd_cli.cli import notes, options
from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from rsd_cli.chat.prompt import Reader
    from rsd_cli.cli.conversing import Talk
    from rsd_cli.cli.repl import Repl


def chat(
    name: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="With --resume: which conversation; the last one.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a conversation: its ID, or last.")
    ] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the conversations on this machine.")] = False,
    no_log: options.NoLog = False,
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each answer's record as a line of JSON; --list as JSON.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but the answers.")] = False,
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
    """Talk with a trio.

    Every answer is decoded step by step; /help lists what can be typed. Conversations are kept, and --resume goes on
    with one. Without a terminal each line of standard input is a turn, until its end.
    """
    from rsd_cli.cli import setup
    from rsd_cli.cli.method import Wishes, method_of
    from rsd_cli.cli.screen import Screen
    from rsd_cli.cli.shape import Shape, check_kv_type, parse_layers

    if listing:
        _list(as_json=as_json, color=not no_color)
        return
    if name and not resume:
        raise UsageError(f"{name!r} is no option of rsd chat.", _meant(name))
    wishes = Wishes(strategy, threshold, weighting, target_share, share_per, beta, aggregate, speculative)
    if not resume:
        method_of(wishes)  # refuses before llama.cpp loads; what a conversation adds is known later
    crashed = (notes.read() or {}).get("chat")
    notes.withdraw()
    from rsd_cli.cli.opening import Given, Opening, opened

    given = Given(trio, draft, target, prm, wishes, max_tokens, max_steps, temperature, seed, system)
    wanted = Opening(
        Given() if crashed else given,  # what was said since then counts, and the journal knows all of it
        setup.Access(models, offline, verify=not no_verify, yes=yes, quiet=quiet, color=not no_color),
        Shape(ctx, 1, batch_size, threads, check_kv_type(kv_type), parse_layers(gpu_layers)),
        Screen(as_json, quiet, not no_color, is_brief=True),
        True,
        crashed or ((name or "last") if resume else None),
        journals=not no_log,
    )
    with opened(wanted, time.perf_counter()) as (talk, _):
        converse(talk, crashed=bool(crashed))


def _meant(name: str) -> str:
    """What somebody may want who gives a conversation's name, or a question."""
    from rsd_cli.chat.journal import find

    try:
        is_known = name in ("last", find(name).stem)
    except UsageError:
        is_known = False
    return f"Go on with it: rsd chat --resume {name}" if is_known else f"Ask one question: rsd ask {name!r}"


def converse(talk: Talk, *, crashed: bool = False) -> None:
    """Read turns until the end; leaves with 1 if a script's turn was refused."""
    from rsd_cli.chat.prompt import Lines
    from rsd_cli.cli.repl import Repl

    talk.load()
    repl = Repl(talk, talk.kept.unanswered)
    if not sys.stdin.isatty():
        if isinstance(sys.stdin, io.TextIOWrapper):
            # Some locales take bytes that are no text for half characters.
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict")
        repl.run(Lines(sys.stdin))
        raise typer.Exit(int(repl.has_failed))
    _greet(talk, crashed=crashed)
    try:
        repl.run(_typed(talk, repl))
    finally:
        notes.withdraw()  # whoever has left does not come back


def _typed(talk: Talk, repl: Repl) -> Reader:
    from rsd_cli.chat.journal import history_file
    from rsd_cli.chat.prompt import Typed

    keeps = talk.journal.is_open
    talk.leaves_notes = keeps
    talk.leave_note()  # of a question that `rsd ask` put
    return Typed(history_file() if keeps else None, repl.status, color=talk.screen.color)


def _greet(talk: Talk, *, crashed: bool) -> None:
    """Say who will answer, and what there is of this conversation."""
    from rsd_cli.display.chat import notice
    from rsd_cli.display.steps import counted

    turns = len(talk.conversation.turns)
    names = ", ".join(f"{role} {model.name}" for role, model in talk.loaded.models.items())
    console = talk.screen.console
    if crashed and talk.kept.unanswered:
        notice(
            console, "The engine crashed in an answer. The conversation is kept, and your question is below."
        )
    elif crashed:
        notice(console, "The engine crashed at the prompt. The conversation is kept.")
    elif not talk.screen.quiet:
        notice(console, f"{talk.kept.trio}: {names}. /help lists the commands, Ctrl-D leaves.")
    if turns:
        notice(console, f"Conversation {talk.kept.id} goes on, with {counted(turns, 'turn')}.")


def _list(*, as_json: bool, color: bool) -> None:
    from rsd_cli.chat.journal import listed

    if as_json:
        found = [asdict(each) | {"changed": _time(each.changed, "%Y-%m-%dT%H:%M:%S%z")} for each in listed()]
        typer.echo(json.dumps(found, indent=2))
        return
    from rsd_cli.display.chat import conversations
    from rsd_cli.display.consoles import stdout_console

    rows = [
        {
            "id": each.id,
            "changed": _time(each.changed, "%Y-%m-%d %H:%M"),
            "turns": str(each.turns),
            "question": " ".join(each.question.split()),
        }
        for each in listed()
    ]
    conversations(stdout_console(color=color), rows)


def _time(seconds: float, form: str) -> str:
    return time.strftime(form, time.localtime(seconds))
