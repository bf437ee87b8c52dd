"""`rsd models`: list, show, pull, path, verify and remove model files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from rsd_cli.cli import options

if TYPE_CHECKING:
    from rsd_cli.registry.entries import ModelEntry
    from rsd_cli.registry.schema import Registry
    from rsd_cli.registry.store import Store, Verification

app = typer.Typer(help="Model files: list, show, pull, verify, remove.", no_args_is_help=True)

Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Name: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A model, reward model or trio, a path, or hf://user/repo:QUANT."),
]
Names: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="NAME...", help="Models, reward models or trios; paths; hf:// references."),
]


@app.command("ls", hidden=True)
@app.command("list")
def list_models(*, as_json: options.AsJson = False, models: options.ModelsFile = None) -> None:
    """Show which models are present, and what each trio lacks."""
    from rsd_cli.registry.status import model_status, trio_status

    registry, store = _open(models)
    model_rows = [model_status(entry, registry, store) for entry in registry.models.values()]
    trio_rows = [trio_status(name, registry, store) for name in registry.trios]
    if as_json:
        _print_json({"store": store.directory, "models": model_rows, "trios": trio_rows})
        return
    from rsd_cli.display.tables import result_console, show_list

    show_list(result_console(), model_rows, trio_rows)


@app.command()
def show(
    name: Name,
    *,
    as_json: options.AsJson = False,
    models: options.ModelsFile = None,
    offline: options.Offline = False,
) -> None:
    """Show everything about a model, a reward model or a trio."""
    registry, store = _open(models, offline=offline)
    parts = _described(name, registry, store, offline=offline)
    if as_json:
        _print_json(parts[0] if len(parts) == 1 else {"name": name, "parts": parts})
        return
    from rsd_cli.display.tables import result_console, show_fields

    console = result_console()
    for number, part in enumerate(parts):
        if number:
            console.print()
        show_fields(console, {key: _lines(value) for key, value in _for_people(part).items()})


@app.command()
def pull(
    names: Names,
    *,
    as_json: options.AsJson = False,
    models: options.ModelsFile = None,
    offline: options.Offline = False,
    quiet: Quiet = False,
) -> None:
    """Download and verify what is missing."""
    files = _fetched(names, models, offline=offline, quiet=quiet)
    if as_json:
        _print_json({"files": files})
    elif files:
        _print_lines(f"{file['name']}  {file['path']}" for file in files)
    else:
        _print_lines([f"{' '.join(names)}: needs no file of its own"])


@app.command()
def path(
    names: Names,
    *,
    as_json: options.AsJson = False,
    models: options.ModelsFile = None,
    offline: options.Offline = False,
    quiet: Quiet = False,
) -> None:
    """Print where the files are, one line each; downloads what is missing."""
    files = _fetched(names, models, offline=offline, quiet=quiet)
    if as_json:
        _print_json({"files": files})
        return
    _print_lines(str(file["path"]) for file in files)


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="All that are present.")
    ] = None,
    *,
    as_json: options.AsJson = False,
    models: options.ModelsFile = None,
    quiet: Quiet = False,
) -> None:
    """Hash files again and compare; exit code 3 if one is damaged or missing."""
    from rsd_cli.display.progress import transfer_progress
    from rsd_cli.errors import ModelError
    from rsd_cli.registry.failures import how_to_mend

    registry, store = _open(models, offline=True)
    entries = _entries(names, registry, offline=True) if names else list(registry.models.values())
    with transfer_progress(quiet=quiet) as progress:
        found = [_Verified(entry, store.verify(entry, progress)) for entry in entries]
    checked = [one for one in found if names or one.verification]
    if as_json:
        _print_json({"files": [one.data for one in checked]})
    else:
        _print_lines(one.line for one in checked)
    bad = [one for one in checked if not one.ok]
    if bad:
        raise ModelError(
            f"Damaged or missing: {', '.join(one.name for one in bad)}.",
            how_to_mend(bad[0].entry, is_ours=store.owns(bad[0].entry)),
        )


@app.command()
def rm(
    names: Names,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: options.AsJson = False,
    models: options.ModelsFile = None,
) -> None:
    """Remove files from rsd's own store; files elsewhere are never touched."""
    from rsd_cli.errors import ModelError

    registry, store = _open(models, offline=True)
    entries = [entry for entry in _entries(names, registry, offline=True) if store.owns(entry)]
    if not entries:
        raise ModelError(
            f"Nothing of {', '.join(names)} is in {store.directory}.", "See what is: rsd models list."
        )
    _confirm([entry.name for entry in entries], yes=yes)
    freed = sum(store.remove(entry) for entry in entries)
    removed = [entry.name for entry in entries]
    if as_json:
        _print_json({"removed": removed, "freed": freed})
        return
    from rsd_cli.registry.names import size_text

    _print_lines([f"removed {', '.join(removed)} ({size_text(freed)})"])


class _Verified:
    """A verification with the entry it was made for, as a line and as data."""

    def __init__(self, entry: ModelEntry, verification: Verification | None) -> None:
        self.entry = entry
        self.name = entry.name
        self.verification = verification
        self.ok = verification is not None and verification.ok

    @property
    def line(self) -> str:
        if self.verification is None:
            return f"{self.name}: not present"
        state = f"ok, sha256 {self.verification.sha256}" if self.ok else f"BAD, {self.verification.problem}"
        return f"{self.name}: {state}  {self.verification.path}"

    @property
    def data(self) -> dict[str, object]:
        if self.verification is None:
            return {"name": self.name, "ok": False, "problem": "not present"}
        return {"name": self.name, **vars(self.verification)}


def _open(models: Path | None, *, offline: bool = False) -> tuple[Registry, Store]:
    from rsd_cli.cli.prm_convert import converter
    from rsd_cli.registry.loading import load_registry
    from rsd_cli.registry.store import Store

    registry = load_registry(models)
    return registry, Store(offline=offline, convert=converter(registry, offline=offline))


def _entries(names: list[str], registry: Registry, *, offline: bool) -> list[ModelEntry]:
    """The model files behind some names, each once."""
    found = [entry for name in names for entry in registry.models_of(name, offline=offline)]
    return list({(entry.file_name, str(entry.sources)): entry for entry in found}.values())


def _fetched(names: list[str], models: Path | None, *, offline: bool, quiet: bool) -> list[dict[str, object]]:
    from rsd_cli.display.progress import transfer_progress

    registry, store = _open(models, offline=offline)
    entries = _entries(names, registry, offline=offline)
    with transfer_progress(quiet=quiet) as progress:
        return [
            {"name": e.name, "path": store.fetch(e, progress), "sha256": e.sha256, "size": e.size}
            for e in entries
        ]


def _described(name: str, registry: Registry, store: Store, *, offline: bool) -> list[dict[str, Any]]:
    """The entry of every kind that has this name, with what is there of it."""
    from rsd_cli.registry.status import model_status, trio_status

    found: list[dict[str, Any]] = []
    if name in registry.trios:
        trio = registry.trios[name].model_dump()
        found.append({"kind": "trio", **trio, "missing": trio_status(name, registry, store).missing})
    if name in registry.prms:
        found.append({"kind": "reward model", **registry.prms[name].model_dump()})
    if name in registry.models or not found:
        entry = registry.models_of(name, offline=offline)[0]
        status = model_status(entry, registry, store)
        state = {"present": status.present, "partial_bytes": status.partial_bytes, "path": status.path}
        found.append({"kind": "model", **entry.model_dump(), **state, "trios": status.trios})
    return found


def _for_people(part: dict[str, Any]) -> dict[str, Any]:
    from rsd_cli.registry.names import size_text

    sizes = {
        key: f"{size_text(part[key])} ({part[key]} bytes)"
        for key in ("size", "partial_bytes")
        if part.get(key)
    }
    return {**part, "partial_bytes": "", **sizes}


def _lines(value: object) -> list[str]:
    """A value as one or more lines for people."""
    if isinstance(value, list | tuple):
        return [line for item in value for line in _lines(item)]
    if isinstance(value, dict) and "kind" in value:
        return [_source_line(value)]
    if isinstance(value, dict):
        return [f"{key} {inner}" for key, inner in value.items()]
    return [] if value in {None, ""} else [str(value)]


def _source_line(source: dict[str, Any]) -> str:
    from pydantic import TypeAdapter

    from rsd_cli.registry.entries import Source

    adapter: TypeAdapter[Source] = TypeAdapter(Source)
    return f"{source['kind']}: {adapter.validate_python(source)}"


def _confirm(names: list[str], *, yes: bool) -> None:
    import sys

    from rsd_cli.errors import UsageError

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"Removing {', '.join(names)} needs a confirmation.", "Use --yes.")
    typer.confirm(f"Remove {', '.join(names)}?", abort=True, err=True)


def _print_lines(lines: Any) -> None:  # noqa: ANN401
    from rsd_cli.display.sanitise import visible

    for line in lines:
        typer.echo(visible(line))


def _print_json(data: object) -> None:
    typer.echo(json.dumps(data, indent=2, default=_plain))


def _plain(value: object) -> object:
    return vars(value) if hasattr(value, "__dataclass_fields__") else str(value)
