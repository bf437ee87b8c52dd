"""The loaded models of one run: the first role at once, the others behind its back. Wires, decides nothing."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import typer

from rsd_cli.cli.shape import ALL_LAYERS
from rsd_cli.decoding.participants import check_vocabularies
from rsd_cli.decoding.prompts import MATHS
from rsd_cli.decoding.strategies import AUTHORS, asks_likelihoods, parse, rejects_nothing, speculates
from rsd_cli.decoding.trajectory import Answerer
from rsd_cli.engine.context import ContextOptions
from rsd_cli.engine.llama import DecodeAborted, Model
from rsd_cli.engine.seats import Engine
from rsd_cli.engine.speculation import check_pair
from rsd_cli.engine.templates import ChatTemplate, Message, Renderer
from rsd_cli.errors import UsageError
from rsd_cli.records import ModelId
from rsd_cli.registry.memory import DEFAULT_CTX
from rsd_cli.registry.verdicts import sha256_of
from rsd_cli.rewards.families import Confidence
from rsd_cli.rewards.making import head_of, make_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from rsd_cli.cli.shape import Shape
    from rsd_cli.cli.warm import FoundModel
    from rsd_cli.decoding.trajectory import Settings, Trajectory
    from rsd_cli.records import Author, Role
    from rsd_cli.rewards.families import Family
    from rsd_cli.rewards.heads import Head
    from rsd_cli.rewards.spec import PrmSpec


@dataclass
class LoadedTrio:
    """Engines by role. `engine` waits for a role that is still loading; `load` begins one without waiting.

    A PRM that is a head on the draft's own file has no model of its own here.
    """

    models: dict[Role, FoundModel]
    prm: PrmSpec | None
    shape: Shape
    aborted: Callable[[], bool]
    is_paused: Callable[[], bool] = lambda: False  # ends a decode like `aborted`, but no loading
    on_loading: Callable[[Role, str], None] = lambda _role, _name: None
    _renderer: Renderer = field(default_factory=Renderer)
    _loader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "loader"))
    _is_closing: threading.Event = field(default_factory=threading.Event)
    _engines: dict[Role, Future[Engine]] = field(default_factory=dict)
    _weights: dict[Path, Model] = field(default_factory=dict)
    _templates: dict[Role, ChatTemplate] = field(default_factory=dict)
    _said: dict[Role, dict[str, tuple[int, ...]]] = field(default_factory=dict)
    _family: Family | None = None
    first_loaded_at: float = 0.0  # time.perf_counter when the first engine was there

    def load(self, role: Role) -> Future[Engine]:
        """Begin to load a role, unless that has begun; anew if what was begun was aborted."""
        if role not in self._engines or _was_aborted(self._engines[role]):
            self._engines[role] = self._loader.submit(self._load, role)
        return self._engines[role]

    def load_all(self, roles: Iterable[Role] = ()) -> None:
        """Begin to load what is missing: of these roles, or of all."""
        for role in roles or self.models:
            if role in self.models:
                self.load(role)

    def wait_for_all(self) -> None:
        """Load every role before anything is asked; ends early if that is aborted."""
        with suppress(DecodeAborted):
            self.wait_for(self.models)

    def wait_for(self, roles: Iterable[Role]) -> None:
        """Load these roles; there may be no model that the PRM reads with, as there is none for confidence."""
        for role in roles:
            reader = self.critic if role == "prm" else role
            if reader in self.models:
                self.engine(reader)

    def engine(self, role: Role) -> Engine:
        """The engine of a role; waits for it."""
        if not self.load(role).done():
            self.on_loading(role, self.models[role].name)
        while True:
            loading = self.load(role)  # an earlier question's Ctrl-C may end it only now
            done, _ = wait([loading], timeout=0.05)
            if done and not _was_aborted(loading):
                return loading.result()
            if self.aborted():
                raise DecodeAborted

    def check_prm(self) -> None:
        """Refuse a PRM that does not fit its model; waits for that, unless it is aborted."""
        with suppress(DecodeAborted):
            _ = self.family

    def check_pair(self, settings: Settings) -> None:
        """Refuse a draft and a target of which one can't work on the other's tokens, where these settings ask it to.

        Waits for both then, unless that is aborted.
        """
        with suppress(DecodeAborted):
            if speculates(settings):
                check_pair(self.engine("draft").model, self.engine("target").model)
            if asks_likelihoods(settings):
                check_vocabularies(self.engine("draft").model, self.engine("target").model)

    def check_templates(self, settings: Settings) -> None:
        """Refuse a writer whose chat template takes no question with these settings; waits like `check_pair`."""
        writers = [author for author in AUTHORS if author in parse(settings.strategy).roles]
        if "draft" in writers and rejects_nothing(settings):  # the target is only compared with
            writers = ["draft"]
        with suppress(DecodeAborted):
            for author in writers:
                self.prompt(author, settings.system, "?")

    def loaded(self) -> dict[Role, Engine]:
        """The engines that are ready; why another is not, `engine` says."""
        done = {role: loading for role, loading in self._engines.items() if loading.done()}
        return {role: loading.result() for role, loading in done.items() if loading.exception() is None}

    @property
    def family(self) -> Family | None:
        """How the PRM scores; waits for its model where it has one."""
        if self._family is None and self.prm:
            self._family = self._make_family(self.prm)
        return self._family

    @property
    def watches_draft(self) -> bool:
        """Whether the draft's own probabilities are the rewards; waits for nothing."""
        return self.prm is not None and self.prm.family == "confidence"

    @property
    def on_several_devices(self) -> bool:
        """Whether the roles' models may compute at the same time: on GPUs, or some there and some on the CPU."""
        return self.shape.is_on_several_devices(self.models)

    @property
    def critic(self) -> Role:
        """Whose engine the PRM reads with."""
        return "prm" if "prm" in self.models else "draft"

    def template(self, role: Role) -> ChatTemplate:
        """The chat template of a role's model."""
        if role not in self._templates:
            self._templates[role] = ChatTemplate(self.engine(role).model, self._renderer)
        return self._templates[role]

    def prompt(self, role: Author, system: str, question: str, before: Sequence[Message] = ()) -> list[int]:
        """The question as the role sees it before the first step, behind what was said before."""
        first, said = [Message("system", system)] if system else [], self._said.get(role, {})
        known = [replace(turn, ids=said.get(turn.content)) for turn in before]
        return self.template(role).encode([*first, *known, Message("user", question)])

    def remember(self, trajectory: Trajectory, turns: Collection[str]) -> None:
        """Keep an answer in the tokens that are in the models' memories, and those of `turns` that were kept before.

        Text that was sampled can be cut into tokens in other ways than it was made of.
        """
        for role, participant in trajectory.participants.items():
            if isinstance(participant, Answerer):
                said = self._said.get(role, {}) | {trajectory.text: participant.answer}
                self._said[role] = {text: ids for text, ids in said.items() if text in turns}

    def ids(self) -> dict[Role, ModelId]:
        """Which weights play the roles that are loaded."""
        return {role: self._id(self.models[role], engine.model) for role, engine in self.loaded().items()}

    @staticmethod
    def _id(chosen: FoundModel, model: Model) -> ModelId:
        """A file stores a copied embedding matrix twice, so the declared number of parameters comes first."""
        return ModelId(chosen.name, chosen.sha256, chosen.parameters or model.parameters)

    def close(self) -> None:
        """Free everything: contexts before weights. What is still loading is given up."""
        self._is_closing.set()
        self._loader.shutdown(wait=True, cancel_futures=True)
        for loading in self._engines.values():
            if not loading.cancelled() and loading.exception() is None:
                loading.result().close()
        for model in self._weights.values():
            model.close()
        self._renderer.close()

    def _load(self, role: Role) -> Engine:
        """Runs in the loader's thread, one at a time; roles that name the same file share its weights."""
        path = self.models[role].path
        if path not in self._weights:
            self._weights[path] = Model(path, self.shape.gpu_layers.get(role, ALL_LAYERS), self._gives_up)
        model = self._weights[path]
        engine = Engine(model, self._options(role, model), lambda: self.aborted() or self.is_paused())
        self.first_loaded_at = self.first_loaded_at or time.perf_counter()
        return engine

    def _gives_up(self) -> bool:
        return self._is_closing.is_set() or self.aborted()

    def _options(self, role: Role, model: Model) -> ContextOptions:
        shape = self.shape
        if shape.ctx > model.n_ctx_train:
            raise UsageError(
                f"--ctx {shape.ctx:,} is more than the {model.n_ctx_train:,} tokens that "
                f"{model.path.name} was trained for.",
                f"Use --ctx {model.n_ctx_train} or less.",
            )
        if shape.exact and not model.can_cut:
            raise UsageError(
                f"{model.path.name} has a memory that can't be cut, so its texts depend on what is beside them.",
                "Add --parallel 1 for the same bytes in every run.",
            )
        n_ctx = shape.ctx or min(DEFAULT_CTX, model.n_ctx_train)
        return ContextOptions(
            n_ctx=n_ctx,
            n_seats=shape.n_seats,
            n_batch=min(shape.n_batch, n_ctx),
            threads=shape.threads,
            kv_type=shape.kv_type,
            flash_attention=False if shape.reproducible else None,
            forgets=shape.reproducible,
            n_streams=shape.n_streams,
            exact=shape.can_be_exact([role]) and (shape.exact or self._reads_logits(role)),
        )

    def _reads_logits(self, role: Role) -> bool:
        return role == "prm" and self.prm is not None and self.prm.reads_logits

    def _make_family(self, spec: PrmSpec) -> Family:
        if spec.family == "confidence":
            return Confidence()
        model, head = self.engine(self.critic).model, head_of(spec)
        # MATHS is what a head was trained to see before a question.
        reader = make_reader(spec, model, self.template(self.critic), MATHS, head)
        if head is not None:
            self._check(head)
        return reader

    def _check(self, head: Head) -> None:
        """Refuse a head that was made for another file, which is hashed once if need be; warn of one of zeros."""
        found = self.models[self.critic]
        if head.base_sha256:
            head.check_file(found.sha256 or sha256_of(found.path, self._go_on), found.name)
        if head.is_zero:
            typer.echo("The PRM's head has a layer of zeros: it scores every step the same.", err=True)

    def _go_on(self, _done: int, _total: int) -> None:
        if self.aborted():
            raise DecodeAborted


def _was_aborted(loading: Future[Engine]) -> bool:
    """Whether a load ended because somebody asked for that: it says nothing of the model."""
    return loading.done() and not loading.cancelled() and isinstance(loading.exception(), DecodeAborted)
