"""`rsd prm import`: takes the head out of a published checkpoint, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from rsd_cli.registry.hubfiles import HubFiles
    from rsd_cli.rewards.checkpoints import LocalFiles
    from rsd_cli.rewards.heads import Head

SeparatorOption = Annotated[
    str | None, typer.Option("--separator", help="What ends a step, if not as published; \\n is a newline.")
]


def import_head(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="REPO_OR_DIR", help="A Hugging Face repository (user/repo[@rev]), or a directory."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The head to write.")],
    revision: Annotated[
        str | None, typer.Option("--revision", help="A branch, tag or commit of the repository.")
    ] = None,
    separator: SeparatorOption = None,
    base: Annotated[
        str, typer.Option("--base", metavar="MODEL", help="The model whose states it reads, for messages.")
    ] = "",
) -> None:
    """Take the head out of a checkpoint.

    Reads only the byte ranges of the head's tensors, also over the network. Nothing in a checkpoint is executed.
    """
    from rsd_cli.cli.prm_output import check_head_place
    from rsd_cli.rewards.checkpoints import Checkpoint
    from rsd_cli.rewards.published import layout_of, take_head

    check_head_place(output)
    files = checkpoint_files(checkpoint, revision)
    check_head_place(output, files)
    head = take_head(Checkpoint(files), base, separator_text(separator))
    head.save(output)
    warn_of_guess(head)
    shapes = ", ".join(f"{layer.weight.shape[1]:,} to {len(layer.bias):,}" for layer in head.layers)
    read = getattr(files, "read_bytes", None)
    typer.echo(
        f"{head.facts['layout']}: {head.activation} of layers {shapes}; separator {head.separator!r}"
        + (f"; {read:,} bytes read" if read is not None else "")
        + ("; all weights of a layer are zero" if head.is_zero else ""),
        err=True,
    )
    typer.echo(
        f"models.yaml needs family: {head.family}, layout: {layout_of(head)}, head: {output}, "
        "and a model, a threshold and calibrated_on",
        err=True,
    )
    typer.echo(str(output))


def separator_text(option: str | None) -> str | None:
    """What --separator means."""
    return option.replace("\\n", "\n") if option is not None else None


def warn_of_guess(head: Head) -> None:
    """Say where the separator is that of most such models, and nobody said this one's."""
    from rsd_cli.rewards.published import separator_was_guessed

    if separator_was_guessed(head):
        typer.echo(
            f"The separator {head.separator!r} is a guess, some models have another; look into the checkpoint's "
            "card, and name it with --separator or in models.yaml (separator: TEXT).",
            err=True,
        )


def checkpoint_files(
    checkpoint: str, revision: str | None, *, offline: bool = False
) -> LocalFiles | HubFiles:
    """A directory's or a repository's files; `user/repo@rev` says the revision as --revision does."""
    from rsd_cli.registry.files import kind_at
    from rsd_cli.registry.references import parse
    from rsd_cli.rewards.checkpoints import LocalFiles

    path = Path(checkpoint).expanduser()
    kind = kind_at(path)
    if kind == "folder":
        if revision:
            raise UsageError(
                f"{checkpoint!r} is a directory, which has no revision {revision}.", "Leave --revision out."
            )
        return LocalFiles(path)
    if kind:
        raise UsageError(f"{checkpoint!r} is a file.", f"Name its directory: {path.parent}")
    named = parse(checkpoint)
    if named is None or named.quant or named.file:
        raise UsageError(f"{checkpoint!r} is neither a directory nor a repository.", "For example: user/repo")
    if revision and named.revision:
        raise UsageError(
            f"{checkpoint!r} names the revision {named.revision}, --revision names {revision}.",
            "Leave one of them out.",
        )
    if offline:
        raise UsageError(
            f"{checkpoint!r} is read over the network, which --offline forbids.",
            "Download it, and name its directory.",
        )
    from rsd_cli.registry.hubfiles import HubFiles

    return HubFiles(named.repo, named.revision or revision)
