"""From names to verified files: what a command that runs models does first. Loads nothing itself."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsd_cli.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from rsd_cli.cli.warm import FoundModel, FoundTrio
    from rsd_cli.engine.sampling import Sampling
    from rsd_cli.records import Role
    from rsd_cli.registry.entries import ModelEntry, PrmEntry
    from rsd_cli.registry.part import Progress
    from rsd_cli.registry.schema import Registry
    from rsd_cli.registry.store import Store
    from rsd_cli.rewards.spec import PrmSpec

HEAD_FILE = ".safetensors"
ASK_ABOVE = 5_000_000_000  # bytes of download that want a word first
TOLD_ABOVE = 1_000_000_000  # bytes that take longer than a second to hash


@dataclass(frozen=True)
class Choice:
    """Which trio is asked for, and what replaces its parts."""

    trio: str
    draft: str | None = None
    target: str | None = None
    prm: str | None = None


@dataclass(frozen=True)
class Access:
    """How models may be come by."""

    models_file: Path | None = None
    offline: bool = False
    verify: bool = True
    yes: bool = False
    quiet: bool = False
    color: bool = True


@dataclass(frozen=True)
class Found:
    """A trio with its files, what to name it by later, and how long downloading took (0 if nothing was missing)."""

    trio: FoundTrio
    choice: Choice
    download_seconds: float = 0.0


def find(choice: Choice, access: Access, roles: Iterable[Role]) -> Found:
    """Look the names up and get verified files for these roles; what is missing is downloaded."""
    from rsd_cli.cli import warm

    wanted = tuple(roles)
    key = f"{choice.trio}:{','.join(wanted)}"
    may_keep = access.verify and not (choice.draft or choice.target or choice.prm)
    known = warm.recall(key, access.models_file) if may_keep else None
    if known:
        return Found(known, choice)
    found = _look_up(choice, access, wanted)
    if may_keep:
        warm.keep(key, access.models_file, found.trio)
    return found


def find_hashed(choice: Choice, access: Access, roles: Iterable[Role]) -> FoundTrio:
    """A trio with the sha256 of every file, also of those that nobody declared one of."""
    found = find(choice, access, roles).trio
    with _told_if_long(access) as progress:
        return found.hashed(progress)


@contextmanager
def _told_if_long(access: Access) -> Iterator[Progress]:
    """Progress of hashing, shown where it takes long; else the display need not even be imported."""
    shown: list[Progress] = []
    with ExitStack() as stack:

        def told(name: str, phase: str, done: int, total: int | None) -> None:
            if not total or total <= TOLD_ABOVE:
                return
            if not shown:
                from rsd_cli.display.progress import transfer_progress

                shown.append(stack.enter_context(transfer_progress(quiet=access.quiet, color=access.color)))
            shown[0](name, phase, done, total)

        yield told


def _look_up(choice: Choice, access: Access, roles: tuple[Role, ...]) -> Found:
    from rsd_cli.cli.warm import FoundTrio
    from rsd_cli.registry.loading import load_registry
    from rsd_cli.rewards.spec import PrmSpec

    registry: Registry = load_registry(access.models_file)
    trio = registry.trio(choice.trio)
    draft = choice.draft or trio.draft
    prm = _prm(registry, choice.prm or trio.prm, access, draft)
    names: dict[Role, str | None] = {
        "draft": draft,
        "target": choice.target or trio.target,
        "prm": prm.model_beside(draft),
    }
    if "prm" in roles and prm.family == "draft-head" and "draft" not in roles:
        roles = (*roles, "draft")  # it reads the draft's states, whoever writes
    entries = {role: registry.model(name, offline=access.offline) for role in roles if (name := names[role])}
    spec = _spec(prm, entries, access) if "prm" in roles else PrmSpec(prm.name, prm.family)
    models, seconds = _present(entries, access)
    threshold = prm.threshold if choice.prm else trio.threshold
    found = FoundTrio(models, spec, threshold, trio.sampling.model_dump())
    return Found(found, _lasting(choice, registry), seconds)


def _prm(registry: Registry, name: str, access: Access, draft: str = "") -> PrmEntry:
    """A reward model by its name; a head of `rsd prm train` also by its file, on the draft or else on its base."""
    from pathlib import Path

    from rsd_cli.registry.schema import head_on
    from rsd_cli.rewards.heads import load_head

    if name in registry.prms or not name.endswith(HEAD_FILE):
        return registry.prm(name, offline=access.offline)
    head = load_head(Path(name).expanduser())
    if head.family != "draft-head":
        raise UsageError(
            f"--prm {name} is a head of the family {head.family}, which reads with a model of its own.",
            "Declare both in your models.yaml (family, model, layout, head, threshold, calibrated_on) "
            "and give that name.",
        )
    return head_on(draft or head.base, str(Path(name).expanduser().absolute()))


def _lasting(choice: Choice, registry: Registry) -> Choice:
    """The same choice in names that mean the same in every directory."""
    named = {"draft": choice.draft, "target": choice.target, "prm": choice.prm}
    return Choice(choice.trio, **{role: registry.lasting(name) for role, name in named.items() if name})


def _spec(prm: PrmEntry, entries: dict[Role, ModelEntry], access: Access) -> PrmSpec:
    """What the PRM needs; a head that is not there is refused before anything is downloaded for it."""
    from rsd_cli.registry.entries import WITH_HEAD
    from rsd_cli.registry.files import kind_at
    from rsd_cli.rewards.spec import PrmSpec

    head = _head_file(prm.head) if prm.head else None
    if prm.family == "value-head" and not head and "prm" in entries:
        head = _head_beside(entries["prm"], access)
    if prm.family in WITH_HEAD and not (head and kind_at(head) == "file"):
        raise ModelError(
            f"PRM {prm.name} is of the family {prm.family} and its head "
            + (f"{head} is not there." if head else "is not named."),
            "Take it out of the checkpoint with `rsd prm import` and name it in your models.yaml (head: FILE), "
            "or choose another, for example --prm confidence.",
        )
    return PrmSpec(prm.name, prm.family, prm.layout or "", head, prm.separator or "")


def _head_file(name: str) -> Path:
    """A head that comes with the package, or a path."""
    from pathlib import Path

    import rsd_cli
    from rsd_cli.registry.files import file_size

    packed = Path(rsd_cli.__file__).parent / "heads" / name
    return packed if file_size(packed) is not None else Path(name).expanduser().absolute()


def _head_beside(entry: ModelEntry, access: Access) -> Path | None:
    """Where a conversion leaves a head: beside the GGUF, if that is on this machine."""
    from rsd_cli.registry.files import head_beside
    from rsd_cli.registry.store import Store

    with _told_if_long(access) as progress:
        path = Store(offline=access.offline, verify=access.verify).locate(entry, progress)
    if path is None and any(source.kind == "convert" for source in entry.sources):
        raise ModelError(f"{entry.name} has to be converted first.", f"Run `rsd models pull {entry.name}`.")
    return head_beside(path) if path else None


def find_model(name: str, access: Access) -> FoundModel:
    """One model by name, path or reference."""
    from rsd_cli.registry.loading import load_registry

    entry = load_registry(access.models_file).model(name, offline=access.offline)
    return _present({"draft": entry}, access)[0]["draft"]


def find_hashed_model(name: str, access: Access) -> FoundModel:
    """One model with the sha256 of its file, also where nobody declared one."""
    found = find_model(name, access)
    with _told_if_long(access) as progress:
        return found.hashed(progress)


def lasting_name(name: str, access: Access) -> str:
    """A model's name as it means the same in every directory, to be looked up by later."""
    from rsd_cli.registry.loading import load_registry

    return load_registry(access.models_file).lasting(name)


def find_prm(name: str, access: Access) -> FoundTrio:
    """A reward model by itself, with a model of its own."""
    from rsd_cli.cli.warm import FoundTrio
    from rsd_cli.registry.loading import load_registry

    registry: Registry = load_registry(access.models_file)
    prm = _prm(registry, name, access)
    entries: dict[Role, ModelEntry] = (
        {"prm": registry.model(prm.model, offline=access.offline)} if prm.model else {}
    )
    spec = _spec(prm, entries, access)
    return FoundTrio(_present(entries, access)[0], spec, prm.threshold, {})


def _present(entries: dict[Role, ModelEntry], access: Access) -> tuple[dict[Role, FoundModel], float]:
    """Verified files, and the seconds that downloading took."""
    from rsd_cli.cli.warm import FoundModel
    from rsd_cli.registry.store import Store

    store = Store(offline=access.offline, verify=access.verify)
    with _told_if_long(access) as progress:
        files = {entry.key: store.locate(entry, progress) for entry in entries.values()}
    missing = {entry.key: entry for entry in entries.values() if files[entry.key] is None}
    if missing and not access.offline:
        _agree(list(missing.values()), access)
    began = time.perf_counter()
    files |= _fetch(store, missing.values(), access) if missing else {}
    models = {
        role: FoundModel(entry.name, path, entry.sha256 if access.verify else None, entry.parameters)
        for role, entry in entries.items()
        if (path := files[entry.key])
    }
    return models, time.perf_counter() - began if missing else 0.0


def _fetch(store: Store, missing: Iterable[ModelEntry], access: Access) -> dict[str, Path]:
    from rsd_cli.display.progress import transfer_progress

    with transfer_progress(quiet=access.quiet, color=access.color) as progress:
        return {entry.key: store.fetch(entry, progress) for entry in missing}


def _agree(missing: list[ModelEntry], access: Access) -> None:
    """Ask before a download that is very large, or may be; off a terminal only --yes agrees to one."""
    from rsd_cli.registry.names import size_text

    wanted = [entry for entry in missing if entry.is_downloaded]
    sizes = [entry.whole_size for entry in wanted]
    known = sum(size or 0 for size in sizes)
    if access.yes or (known < ASK_ABOVE and None not in sizes):
        return
    sized = [size_text(size) if size else "size unknown" for size in sizes]
    question = "To download: " + ", ".join(
        f"{entry.name} ({size})" for entry, size in zip(wanted, sized, strict=True)
    )
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{question}.", "Use --yes to agree, or run `rsd models pull` first.")
    import typer

    typer.confirm(f"{question}. Go on?", abort=True, err=True)


def make_sampling(declared: dict[str, Any], temperature: float | None = None) -> Sampling:
    """The trio's sampling, at another temperature where one was asked for."""
    from rsd_cli.engine.sampling import Sampling

    return Sampling(**declared | ({} if temperature is None else {"temperature": temperature}))
