"""`rsd prm convert`: the GGUF of a reward checkpoint's backbone, which nobody publishes."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsd_cli.cli.prm_import import SeparatorOption, checkpoint_files, separator_text, warn_of_guess
from rsd_cli.errors import ModelError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.registry.entries import ConvertSource
    from rsd_cli.registry.schema import Registry
    from rsd_cli.rewards.checkpoints import Checkpoint


def convert_checkpoint(
    checkpoint: Annotated[
        str, typer.Argument(metavar="REPO_OR_DIR", help="A Hugging Face repository, or a directory.")
    ],
    base: Annotated[
        str,
        typer.Option(
            "--base", metavar="MODEL", help="The model that it was fine-tuned from: a name or a GGUF."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The GGUF to write.")],
    quant: Annotated[
        str, typer.Option("--quant", help="f16, q8_0, q6_k, q5_k_m, q4_k_m, … as llama.cpp calls them.")
    ] = "q8_0",
    revision: Annotated[
        str | None, typer.Option("--revision", help="A branch, tag or commit of the repository.")
    ] = None,
    separator: SeparatorOption = None,
    models: Annotated[
        Path | None,
        typer.Option("--models", metavar="FILE", help="A models.yaml that adds to the packed one."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network.")] = False,
) -> None:
    """Make a GGUF of a reward checkpoint's backbone.

    Takes tokenizer and hyperparameters over from the base. The head, if there is one, is written beside it as
    STEM.head.safetensors. Needs the extra `convert` and space for the weights as 16-bit floats.
    """
    from rsd_cli.cli import setup
    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.engine.llama import DecodeAborted
    from rsd_cli.engine.quantize import check_quantization
    from rsd_cli.rewards.checkpoints import Checkpoint

    quant = quant.lower()
    check_quantization(quant)
    found = setup.find_model(base, setup.Access(models, offline))
    source = Checkpoint(checkpoint_files(checkpoint, revision))
    with Interrupt() as interrupt:
        try:
            made = make_gguf(source, found.path, output, quant, interrupt, separator_text(separator))
        except DecodeAborted:
            raise typer.Exit(interrupt.exit_code) from None
    for path in made:
        typer.echo(str(path))


def converter(registry: Registry, *, offline: bool = False) -> Callable[[ConvertSource, Path], None]:
    """How a model store gets what has to be made here: base and checkpoint fetched, converted, the head beside."""

    def convert(source: ConvertSource, output: Path) -> None:
        from rsd_cli.cli.interrupt import Interrupt
        from rsd_cli.display.progress import transfer_progress
        from rsd_cli.engine.llama import DecodeAborted
        from rsd_cli.engine.quantize import check_quantization
        from rsd_cli.registry.hub import fetch_checkpoint
        from rsd_cli.registry.store import Store
        from rsd_cli.rewards.checkpoints import Checkpoint, LocalFiles

        check_quantization(source.quant)
        with transfer_progress() as progress:
            base = Store(offline=offline).fetch(registry.model(source.base), progress)
        checkpoint = Checkpoint(LocalFiles(fetch_checkpoint(source.repo, source.revision)))
        with Interrupt() as interrupt:
            try:
                make_gguf(checkpoint, base, output, source.quant, interrupt)
            except DecodeAborted:
                raise typer.Exit(interrupt.exit_code) from None

    return convert


def make_gguf(
    checkpoint: Checkpoint,
    base: Path,
    output: Path,
    quant: str,
    interrupt: Interrupt,
    separator: str | None = None,
) -> list[Path]:
    """Convert, quantize, load and check; what was written. Nothing has its name before it is right."""
    from rsd_cli.display.counting import counting
    from rsd_cli.engine.llama import DecodeAborted
    from rsd_cli.engine.quantize import AS_WRITTEN, quantize
    from rsd_cli.registry.verdicts import hash_file
    from rsd_cli.rewards.convert import convert, matched, open_base
    from rsd_cli.rewards.published import has_head, take_head

    description = open_base(base)
    whole = output.with_name(output.name + ".f16.part")
    part = whole if quant == AS_WRITTEN else output.with_name(output.name + ".part")
    head = take_head(checkpoint, output.name, separator) if has_head(checkpoint) else None
    with ExitStack() as stack:
        for path in (whole, part):
            stack.callback(path.unlink, missing_ok=True)
        total = len(matched(checkpoint, description))
        try:
            with counting("tensors", total) as tell:

                def told(name: str) -> None:
                    if interrupt():
                        raise DecodeAborted
                    tell(name)

                convert(checkpoint, description, whole, told)
            if part != whole:
                typer.echo(f"Quantizing to {quant} …", err=True)
                quantize(whole, part, quant, interrupt)
        except OSError as error:
            raise OutputError(f"{whole} can't be written: {error.strerror or error}.") from error
        check_loads(part, head.hidden_size if head else None)
        beside = output.with_name(f"{output.stem}.head.safetensors")
        if head is not None:  # first: a GGUF that has its name is never made again
            replace(head, base_sha256=hash_file(part, lambda _done, _total: None)).save(beside)
            warn_of_guess(head)
        os.replace(part, output)  # noqa: PTH105  # atomic on every system, also over an older file
    return [output, beside] if head is not None else [output]


def check_loads(path: Path, hidden_size: int | None) -> None:
    """Load it and look at one decode; raises ModelError if it does not give finite logits."""
    import numpy as np

    from rsd_cli.engine.context import ContextOptions
    from rsd_cli.engine.jobs import Observed, Read
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.seats import Engine

    with ExitStack() as stack:
        model = Model(path)
        stack.callback(model.close)
        engine = Engine(model, ContextOptions(64, 1))
        stack.callback(engine.close)
        engine.submit(0, Read(model.tokenize("1 + 1 = 2"), (model.eos,), (), hidden=True))
        state = None
        while state is None:
            state = next((update.hidden for update in engine.step() if isinstance(update, Observed)), None)
    if not np.isfinite(state).all():
        raise ModelError(f"{path} computes nothing finite.", "Is the checkpoint whole, and --base its base?")
    if hidden_size not in {None, model.n_embd}:
        raise ModelError(f"The head reads {hidden_size:,} values, {path} has {model.n_embd:,}.")
