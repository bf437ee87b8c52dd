"""A model's own chat template as token ids. Contents never pass through Jinja and are never parsed as special.

The template is rendered once per sequence of roles, with placeholders where the contents go; the scaffolding
between them is tokenized with its control tokens, contents without. There is no fallback to another format.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rsd_cli.engine import isolated
from rsd_cli.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.engine.llama import Model

RENDER_SECONDS = 4.0
ChatRole = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `ids` are the content in the model's own tokens, where they are known."""

    role: ChatRole
    content: str
    ids: tuple[int, ...] | None = None


class TemplateError(ModelError):
    """A chat template does not take these turns; it may take others."""


class Renderer:
    """The process that renders templates; started at once, so that it is ready when a model has loaded."""

    def __init__(self) -> None:
        self._process = self._start()

    @staticmethod
    def _start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            isolated.command(Path(__file__).with_name("template_worker.py")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is ours to handle
        )

    def render(self, request: dict[str, object]) -> str:
        """The rendered text; raises TemplateError with the reason if there is none within `RENDER_SECONDS`."""
        if self._process.poll() is not None:  # an earlier template did not survive
            self.close()
            self._process = self._start()
        clock = threading.Timer(RENDER_SECONDS, self._process.kill)
        clock.start()
        try:
            answer = self._ask(json.dumps(request))
        finally:
            clock.cancel()
        if "text" not in answer:
            raise TemplateError(f"The chat template fails: {answer['error']}.")
        return answer["text"]

    def _ask(self, line: str) -> dict[str, str]:
        assert self._process.stdin and self._process.stdout  # noqa: S101 - both are pipes
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        reply = self._process.stdout.readline()
        if not reply and (code := self._process.wait()) > 0:  # no signal's, and no template can do that
            raise ModelError(
                f"The process that renders chat templates ended at once, with exit code {code}.",
                "pip install --force-reinstall jinja2",
            )
        if not reply.endswith("\n"):  # none, or one that was cut off
            return {"error": f"it did not finish within {RENDER_SECONDS:g} seconds and its memory limit"}
        decoded: dict[str, str] = json.loads(reply)
        return decoded

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe:
                    pipe.close()


class ChatTemplate:
    """Encodes conversations for one model."""

    def __init__(self, model: Model, renderer: Renderer) -> None:
        self._model, self._renderer = model, renderer
        self._scaffolds: dict[tuple[ChatRole, ...], list[list[int]]] = {}

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation and of the header after which the model answers."""
        scaffold = self.scaffold(tuple(message.role for message in messages))
        ids = list(scaffold[0])
        for message, after in zip(messages, scaffold[1:], strict=True):
            ids += [*(self._model.tokenize(message.content) if message.ids is None else message.ids), *after]
        return ids

    def scaffold(self, roles: tuple[ChatRole, ...]) -> list[list[int]]:
        """Token ids before, between and after the contents of turns with these roles."""
        if roles not in self._scaffolds:
            texts = self._split(roles)
            parts = [self._model.tokenize(text, special=True, starts=i == 0) for i, text in enumerate(texts)]
            parts[0] = self._one_bos(parts[0])
            self._scaffolds[roles] = parts
        return self._scaffolds[roles]

    def _split(self, roles: tuple[ChatRole, ...]) -> list[str]:
        marks = [f"\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}{secrets.token_hex(8)}" for _ in roles]
        rest, parts = self._render(roles, marks), []
        for role, mark in zip(roles, marks, strict=True):
            if rest.count(mark) != 1:
                hint = (
                    "Use --system ''." if role == "system" else "Use a GGUF with a chat template that does."
                )
                raise TemplateError(
                    f"The chat template of {self._model.path.name} does not show a {role} message once.", hint
                )
            before, rest = rest.split(mark)
            parts.append(before)
        return [*parts, rest]

    def _render(self, roles: tuple[ChatRole, ...], contents: Sequence[str]) -> str:
        source = self._model.chat_template()
        name = self._model.path.name
        if not source:
            raise ModelError(f"{name} has no chat template.", "Use an instruct model whose GGUF carries one.")
        turns = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
        request: dict[str, object] = {
            "template": source,
            "messages": turns,
            "bos_token": self._model.special_text(self._model.bos),
            "eos_token": self._model.special_text(self._model.eos),
        }
        try:
            return self._renderer.render(request)
        except TemplateError as error:
            hint = "Some templates refuse a system message: try --system ''." if "system" in roles else ""
            raise TemplateError(f"{name}: {error.message}", hint) from error

    def _one_bos(self, ids: list[int]) -> list[int]:
        """Exactly one BOS where the template or the model wants one."""
        bos, rest = self._model.bos, ids
        while rest and rest[0] == bos:
            rest = rest[1:]
        wanted = self._model.adds_bos or len(rest) < len(ids)
        return [bos, *rest] if wanted and bos >= 0 else rest
