"""The `rsd` command with its sub-commands. Each command imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

import rsd_cli
from rsd_cli.cli import ask, batch, bench, doctor, merge, models, prm

app = typer.Typer(
    name="rsd",
    help="Reason locally with three GGUF models: a draft writes, a reward model judges, a target rewrites.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("ask")(ask.ask)
app.command("batch")(batch.batch)
app.command("merge")(merge.merge)
app.add_typer(models.app, name="models")
app.add_typer(prm.app, name="prm")
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"rsd {rsd_cli.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; works behind a command too.")
    ] = False,
) -> None:
    """Reason locally with three GGUF models: a draft writes, a reward model judges, a target rewrites."""
