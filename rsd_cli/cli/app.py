"""The `rsd` command with its sub-commands. Each command imports what it needs when it runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import rsd_cli
from rsd_cli.cli import ask, batch, bench, chat, doctor, evaluate, merge, models, prm

app = typer.Typer(
    name="rsd",
    help="Reason locally with three GGUF models: a draft writes, a reward model judges, a target rewrites.",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("ask")(ask.ask)
app.command("chat")(chat.chat)
app.command("batch")(batch.batch)
app.command("eval")(evaluate.evaluate)
app.command("merge")(merge.merge)
app.add_typer(models.app, name="models")
app.add_typer(prm.app, name="prm")
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"rsd {rsd_cli.__version__}")
        raise typer.Exit


WELCOME = """\
rsd ask "QUESTION"                   one question, answered before your eyes
rsd chat                             a conversation
rsd batch FILE -o ANSWERS            a file of questions, many at a time
rsd models list                      which models there are; rsd doctor: what this machine can run
rsd --help, rsd COMMAND --help       everything else"""


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[  # noqa: ARG001 - __main__ takes it
        bool, typer.Option("--debug", help="Show tracebacks; works behind a command too.")
    ] = False,
) -> None:
    """Reason locally with three GGUF models: a draft writes, a reward model judges, a target rewrites."""
    if context.invoked_subcommand is None:
        is_seen = sys.stdout.isatty()
        typer.echo(WELCOME, err=not is_seen)
        raise typer.Exit(0 if is_seen else 2)
