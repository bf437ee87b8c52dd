"""`rsd batch`: a file of questions, answered with many in flight; what is done is done, whatever happens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from rsd_cli.cli import options
from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from rsd_cli.batch.answers import Format
    from rsd_cli.batch.source import Source
    from rsd_cli.cli.batch_plan import Shard
    from rsd_cli.cli.shape import Shape
    from rsd_cli.cli.warm import FoundModel
    from rsd_cli.decoding.strategies import Strategy
    from rsd_cli.decoding.trajectory import Settings
    from rsd_cli.records import Role


def batch(
    questions: Annotated[
        str, typer.Argument(metavar="FILE", help="JSONL, a question a line; - reads standard input.")
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where answers go; continued if there. - is stdout."
        ),
    ],
    trio: options.Trio = options.DEFAULT_TRIO,
    draft: options.Draft = None,
    target: options.Target = None,
    prm: options.Prm = None,
    strategy: options.Strategy = "rsd",
    speculative: options.Speculative = None,
    threshold: options.Threshold = None,
    weighting: options.Weighting = None,
    target_share: options.TargetShare = None,
    share_per: options.SharePer = None,
    beta: options.Beta = None,
    aggregate: options.Aggregate = None,
    samples: Annotated[
        int,
        typer.Option("--samples", "--n", min=1, max=1024, help="Answers to each question, with a majority."),
    ] = 1,
    parallel: Annotated[
        int,
        typer.Option("--parallel", "-p", min=0, max=256, help="Answers in flight; 0 takes what fits here."),
    ] = 0,
    max_tokens: options.MaxTokens = 2048,
    max_steps: options.MaxSteps = 100,
    max_seconds: Annotated[
        float | None, typer.Option("--max-seconds", min=0.1, max=1e9, help="Longest time for an answer.")
    ] = None,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    system: options.System = None,
    form: Annotated[
        str, typer.Option("--format", help="openai: as OpenAI's batches have it; plain: flat.")
    ] = "openai",
    ordered: Annotated[bool, typer.Option("--ordered", help="Write in the order of the input.")] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try rows again that failed before.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start the output anew.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first row that fails.")] = False,
    max_errors: Annotated[
        int, typer.Option("--max-errors", min=0, help="Stop when this many rows have failed; 0 never.")
    ] = 0,
    reproducible: Annotated[
        bool,
        typer.Option(
            "--reproducible", help="The same bytes in every run on this machine, in the order of the input."
        ),
    ] = False,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Only every N-th line from line I; see rsd merge.")
    ] = "1/1",
    input_field: Annotated[
        str, typer.Option("--input-field", help="The field that holds the question.")
    ] = "",
    id_field: Annotated[str, typer.Option("--id-field", help="The field that names the row.")] = "",
    summary: Annotated[
        Path | None, typer.Option("--summary", metavar="FILE", help="Write the summary as JSON.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")] = False,
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
    """Answer a file of questions.

    A row is an OpenAI batch line, {"id", "input"} or {"id", "question"}; README says all forms. Answers are written
    as they are done. The same command again goes on where it stopped; when all is done it does nothing.
    """
    from rsd_cli.batch.rows import Fields
    from rsd_cli.batch.source import Source
    from rsd_cli.cli import room, setup
    from rsd_cli.cli.batch_end import tell, write_summary
    from rsd_cli.cli.batch_job import Job, count_rows
    from rsd_cli.cli.batch_plan import Plan
    from rsd_cli.cli.batch_run import Brake
    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.cli.method import Wishes, method_of
    from rsd_cli.cli.shape import Shape, check_kv_type, parse_layers
    from rsd_cli.decoding.prompts import MATHS
    from rsd_cli.decoding.trajectory import Settings

    if reproducible:
        _check_reproducible(
            kv_type, max_seconds, has_budget=target_share is not None and share_per != "problem"
        )
    wishes = Wishes(strategy, threshold, weighting, target_share, share_per, beta, aggregate, speculative)
    method = method_of(wishes)
    source, part = Source(questions), _shard(shard)
    fields = Fields(input_field, id_field)
    place = _place(output, source)
    if summary:
        _check_summary(summary, source, place)
    total = count_rows(source, fields, part) if source.rereadable else None
    roles = method.strategy.roles
    access = setup.Access(models, offline, verify=not no_verify, yes=yes, quiet=quiet, color=not no_color)
    found = setup.find_hashed(setup.Choice(trio, draft, target, prm), access, roles)
    settings = Settings(
        max_tokens=max_tokens,
        max_steps=max_steps,
        system=MATHS if system is None else system,
        seed=seed,
        sampling=setup.make_sampling(found.sampling, temperature=temperature),
        max_seconds=max_seconds,
    )
    settings = method.settle(settings, found.threshold)
    layers, kv = parse_layers(gpu_layers), check_kv_type(kv_type)
    shape = Shape(ctx, 1, batch_size, threads, kv, layers, reproducible)
    if reproducible:
        shape = _reproducible(shape, parallel, method.strategy, found.models)
    seats = room.seats_of(method.strategy, 1 if reproducible and not shape.exact else parallel)
    shape = room.with_seats(found.models, shape, seats, method.strategy.width)
    plan = Plan(
        settings=settings,
        trio_threshold=found.threshold,
        described={"trio": trio, "prm": found.prm.name, **shape.described},
        roles=roles,
        fields=fields,
        seats=shape.n_seats,
        samples=_samples(samples, method.strategy, settings),
        form=_format(form),
        shard=part,
        ordered=ordered or reproducible,
        retry_errors=retry_errors,
        max_errors=1 if fail_fast else max_errors,
        reproducible=reproducible,
    )
    with Interrupt() as interrupt:
        brake, recalls = Brake(interrupt), summary is not None
        job = Job(plan, shape, found, source, total, brake, quiet=quiet, color=not no_color, recalls=recalls)
        sink, done = job.open(place, overwrite=overwrite)
        tally = job.run(sink, done)
        if tally is None:
            raise typer.Exit(interrupt.exit_code)
        tell(job, tally, place, interrupted=interrupt(), overwrite=overwrite)
        if summary:
            write_summary(summary, tally, quiet=quiet)
    if interrupt() or tally.failed or tally.failed_before:
        raise typer.Exit(interrupt.exit_code if interrupt() else 1)


def _check_summary(path: Path, source: Source, place: Path | None) -> None:
    """A summary comes at the end; that it can't be written, or where, is said at the beginning."""
    from rsd_cli.batch.ledger import manifest_path
    from rsd_cli.output import LineFile, is_same_file

    taken = {"output": place, "output's manifest": manifest_path(place)} if place else {}
    same = (what for what, other in taken.items() if is_same_file(path, other))
    what = "input" if source.is_file(path) else next(same, "")
    if what:
        raise UsageError(f"--summary {path} is the {what} as well.", "Name another file for the summary.")
    LineFile(path).close()


def _samples(samples: int, strategy: Strategy, settings: Settings) -> int:
    """Answers to each question: as many as --samples or the strategy says."""
    if samples > 1 and strategy.samples > 1:
        raise UsageError(
            f"--strategy {strategy} has its own number of answers, and --samples {samples} gives another.",
            "Leave --samples out.",
        )
    samples = max(samples, strategy.samples)
    if samples > 1 and settings.sampling and settings.sampling.temperature <= 0:
        raise UsageError(
            f"--samples {samples} at temperature 0 would give the same answer {samples} times.",
            "Add --temperature 0.7.",
        )
    return samples


def _reproducible(shape: Shape, parallel: int, strategy: Strategy, models: dict[Role, FoundModel]) -> Shape:
    """The shape with exact sums, where several answers may then be in flight; refuses several where they may not."""
    alone = _what_is_alone(shape, strategy, models)
    if parallel > 1 and alone:
        raise UsageError(
            f"With {alone} --reproducible answers one row at a time, --parallel asks for {parallel}.",
            "Leave out --parallel, or --reproducible.",
        )
    return replace(shape, exact=not alone and parallel != 1)


def _what_is_alone(shape: Shape, strategy: Strategy, models: dict[Role, FoundModel]) -> str:
    """What gives the same bytes only with nothing beside it, if anything does."""
    from rsd_cli.registry.gguf import read_header

    if strategy.width > 1:
        return f"--strategy {strategy}"
    if not shape.can_be_exact(strategy.roles):
        return "a GPU or BLAS"
    recurrent = (model.name for model in models.values() if not read_header(model.path).can_be_cut)
    return next((f"the recurrent model {name}" for name in recurrent), "")


def _check_reproducible(kv_type: str, max_seconds: float | None, *, has_budget: bool) -> None:
    """Refuse what can't be had together with the same bytes in every run."""
    from rsd_cli.engine.context import QUANTIZED

    if has_budget:
        raise UsageError(
            "--target-share of a run depends on which rows came before, which --reproducible must not.",
            "Add --share-per problem.",
        )
    if max_seconds:
        raise UsageError(
            f"Where --max-seconds {max_seconds:g} ends an answer no two runs agree on, which --reproducible must.",
            "Limit --max-tokens.",
        )
    if kv_type in QUANTIZED:
        raise UsageError(
            f"--kv-type {kv_type} needs flash attention, which --reproducible does without.",
            "Leave out --kv-type, or --reproducible.",
        )


def _format(name: str) -> Format:
    from rsd_cli.batch.answers import Format

    formats: tuple[Format, ...] = get_args(Format)
    return options.one_of("--format", name, formats)


def _shard(text: str) -> Shard:
    from rsd_cli.cli.batch_plan import Shard

    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--shard {text!r} is no part of a whole.", "For example: --shard 1/4")
    return Shard(int(index), int(count))


def _place(output: str, source: Source) -> Path | None:
    """The output file, None for standard output."""
    if output == "-":
        return None
    if source.is_file(Path(output)):
        raise UsageError(f"{output} is the input as well.", "Name another file for the answers.")
    return Path(output)
