"""`rsd prm convert`: the GGUF of a reward checkpoint's backbone, which nobody publishes."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsd_cli.cli import options
from rsd_cli.cli.prm_import import SeparatorOption, checkpoint_files, separator_text, warn_of_guess
from rsd_cli.cli.prm_output import check_gguf_place
from rsd_cli.errors import DISK_FULL, ModelError, OutputError, ResourceError, RSDError
from rsd_cli.registry.files import head_beside

if TYPE_CHECKING:
    from collections.abc import Callable

    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.registry.entries import ConvertSource
    from rsd_cli.registry.part import Progress
    from rsd_cli.registry.schema import Registry
    from rsd_cli.registry.store import Convert
    from rsd_cli.rewards.checkpoints import Checkpoint


def convert_checkpoint(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="REPO_OR_DIR", help="A Hugging Face repository (user/repo[@rev]), or a directory."
        ),
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
    models: options.ModelsFile = None,
    offline: options.Offline = False,
    yes: options.Yes = False,
) -> None:
    """Make a GGUF of a reward checkpoint's backbone.

    Takes tokenizer and hyperparameters over from the base. The head, if there is one, is written beside it as
    STEM.head.safetensors. Needs the extra `convert` and space for the weights as 16-bit floats.
    """
    from rsd_cli.cli import setup
    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.display.progress import transfer_progress
    from rsd_cli.engine.llama import DecodeAborted
    from rsd_cli.engine.quantize import check_quantization
    from rsd_cli.rewards.checkpoints import Checkpoint

    quant = quant.lower()
    check_quantization(quant)
    check_gguf_place(output)
    source = Checkpoint(checkpoint_files(checkpoint, revision, offline=offline))
    found = setup.find_model(base, setup.Access(models, offline, yes=yes))
    with Interrupt() as interrupt, transfer_progress() as progress:
        try:
            work = Work(output, quant, interrupt, progress, separator_text(separator))
            made = make_gguf(source, found.path, work)
        except DecodeAborted:
            raise typer.Exit(interrupt.exit_code) from None
    for path in made:
        typer.echo(str(path))


def converter(registry: Registry, *, offline: bool = False) -> Convert:
    """How a model store gets what has to be made here: base and checkpoint fetched, converted, the head beside."""

    def convert(source: ConvertSource, output: Path, folder: Path, progress: Progress) -> None:
        from rsd_cli.cli.interrupt import Interrupt
        from rsd_cli.engine.llama import DecodeAborted
        from rsd_cli.engine.quantize import check_quantization
        from rsd_cli.registry.store import Store
        from rsd_cli.registry.weights import fetch_weights
        from rsd_cli.rewards.checkpoints import Checkpoint, LocalFiles

        check_quantization(source.quant)
        base = Store(offline=offline).fetch(registry.model(source.base), progress)
        made = bytes_made(base, source.quant)
        weights = fetch_weights(
            source, folder, progress, made
        )  # in a directory that is named as their commit
        # Published separators go by the repository's name.
        checkpoint = Checkpoint(LocalFiles(weights, source.repo, weights.name))
        with Interrupt() as interrupt:
            try:
                make_gguf(checkpoint, base, Work(output, source.quant, interrupt, progress))
            except DecodeAborted:
                raise typer.Exit(interrupt.exit_code) from None

    return convert


def bytes_made(base: Path, quant: str) -> int:
    """What a conversion has on the disk at most: the weights as 16-bit floats, and what they are quantized to."""
    from rsd_cli.engine.quantize import AS_WRITTEN
    from rsd_cli.rewards.convert import open_base

    whole = open_base(base).size
    quantized = {AS_WRITTEN: 0, "bf16": whole}
    return whole + quantized.get(quant, whole * 17 // 32)  # as q8_0, which all others are smaller than


@dataclass(frozen=True)
class Work:
    """What a conversion is to write, who may stop it, and who hears how far it is."""

    output: Path
    quant: str
    interrupt: Interrupt
    progress: Progress
    separator: str | None = None

    def told(self, phase: str, done: int, total: int | None) -> None:
        """Say it, and end here if that is asked for."""
        from rsd_cli.engine.llama import DecodeAborted

        self.progress(self.output.stem, phase, done, total)
        if self.interrupt():
            raise DecodeAborted


def make_gguf(checkpoint: Checkpoint, base: Path, work: Work) -> list[Path]:
    """Convert, quantize, load and check; what was written. Nothing has its name before it is right."""
    from rsd_cli.engine.quantize import AS_WRITTEN
    from rsd_cli.registry.verdicts import Verdicts, hash_file, store_directory
    from rsd_cli.rewards.published import has_head, take_head

    output = work.output
    # Other names than that of a download, which goes on from what it finds.
    whole, part = (output.with_name(f"{output.name}.{quant}.part") for quant in (AS_WRITTEN, work.quant))
    head = take_head(checkpoint, output.name, work.separator) if has_head(checkpoint) else None
    with ExitStack() as stack:
        for path in (whole, part):
            stack.callback(path.unlink, missing_ok=True)
        _write(checkpoint, base, whole, work)
        if part != whole:
            _quantize(whole, part, work)
        check_loads(part, head.hidden_size if head else None, work.interrupt)
        beside, sha256 = head_beside(output), ""
        if head is not None:  # first: a GGUF that has its name is never made again
            sha256 = hash_file(part, partial(work.told, "verifying"))
            replace(head, base_sha256=sha256).save(beside)
            warn_of_guess(head)
        os.replace(part, output)  # noqa: PTH105  # atomic on every system, also over an older file
        if sha256:  # the head will ask for it
            Verdicts(store_directory() / "verdicts.json").record(output.absolute(), sha256)
    return [output, beside] if head is not None else [output]


def _write(checkpoint: Checkpoint, base: Path, whole: Path, work: Work) -> None:
    """The weights as 16-bit floats."""
    from rsd_cli.rewards.convert import convert, open_base, sizes

    description = open_base(base)
    left = sizes(checkpoint, description)
    total = sum(left.values())

    def told(name: str) -> None:
        del left[name]
        work.told("converting", total - sum(left.values()), total)

    try:
        convert(checkpoint, description, whole, told)
    except OSError as error:
        raise _not_written(whole, error) from error


def _quantize(whole: Path, part: Path, work: Work) -> None:
    from rsd_cli.engine.quantize import quantize

    def told() -> bool:
        work.told("quantizing", part.stat().st_size if part.is_file() else 0, None)
        return False

    quantize(whole, part, work.quant, told)


def _not_written(path: Path, error: OSError) -> RSDError:
    """numpy says a full disk without a number."""
    if error.errno in DISK_FULL or error.errno is None:
        return ResourceError(
            f"{path} can't be written: {error.strerror or error}.", "Free some space, or choose another disk."
        )
    return OutputError(f"{path} can't be written: {error.strerror or error}.")


def check_loads(path: Path, hidden_size: int | None, aborted: Callable[[], bool] | None = None) -> None:
    """Load it and look at one decode; raises ModelError if what its PRM reads is not finite or of another size.

    That is a hidden state of `hidden_size` values where there is a head, else logits.
    """
    import numpy as np

    from rsd_cli.engine.context import ContextOptions
    from rsd_cli.engine.jobs import Observed, Read
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.seats import Engine

    with ExitStack() as stack:
        model = Model(path, aborted=aborted)
        stack.callback(model.close)
        engine = Engine(model, ContextOptions(64, 1), aborted)
        stack.callback(engine.close)
        ids = model.tokenize("1 + 1 = 2")
        engine.submit(0, Read(ids, ids, (), hidden=hidden_size is not None))
        seen = None
        while seen is None:
            seen = next((update for update in engine.step() if isinstance(update, Observed)), None)
    read = np.array(seen.logits) if seen.hidden is None else seen.hidden
    if not np.isfinite(read).all():
        raise ModelError(f"{path} computes nothing finite.", "Is the checkpoint whole, and --base its base?")
    if hidden_size not in {None, model.n_embd}:
        raise ModelError(f"The head reads {hidden_size:,} values, {path} has {model.n_embd:,}.")
