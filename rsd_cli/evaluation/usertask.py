r"""A user's own task, declared in a short YAML file of this form.

    name: warm-up
    file: warm-up.jsonl            # beside the YAML file; JSONL, a row a line
    answer_type: numeric           # numeric, maths or choice
    fields:
      question: question           # which field of a row is what; these two are the defaults
      answer: answer
      choices: options             # of a multiple-choice task: the field with the list of options
      id: key                      # optional; else the row's number, from 0
    prompt: "{context}\n\n{question}"   # optional: fields of the row in braces, instead of the question alone
    system: "Answer in one word."  # optional, instead of the paper's prompt

Fields are text or numbers; only an answer may also be true or false. The answer of a multiple-choice row is a letter,
an index from 0 or the option's text. Reads the YAML file only.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rsd_cli.decoding.prompts import MATHS
from rsd_cli.errors import UsageError
from rsd_cli.evaluation.items import Item, Row, field_text, with_choices
from rsd_cli.evaluation.tasks import TASKS, Task
from rsd_cli.registry import strictyaml
from rsd_cli.registry.names import NAME, RULE, suggestion

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from rsd_cli.registry.strictyaml import Document

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_ -]*)\}")
Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Fields(_Strict):
    """Which field of a row is what."""

    question: Text = "question"
    answer: Text = "answer"
    choices: Text | None = None
    id: Text | None = None


class UserTask(_Strict):
    """The file's content."""

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    file: Text
    answer_type: Literal["numeric", "maths", "choice"]
    fields: Fields = Fields()
    prompt: Text | None = None
    system: Text = MATHS

    @model_validator(mode="after")
    def _choices_belong_to_choice(self) -> UserTask:
        if (self.answer_type == "choice") != (self.fields.choices is not None):
            raise ValueError("fields.choices and answer_type choice go together")
        if self.name in TASKS:
            raise ValueError(f"{self.name} is the name of a built-in task")
        return self

    def read(self, number: str, row: Row) -> Item:
        """A row as an item; raises KeyError or ValueError for a row without the fields."""
        question = _filled(self.prompt, row) if self.prompt else field_text(row, self.fields.question)
        ident = field_text(row, self.fields.id) if self.fields.id else number
        answer = row[self.fields.answer]
        gold = str(answer) if isinstance(answer, bool) else field_text(row, self.fields.answer)
        if not question.strip() or not gold.strip():
            raise ValueError("its question or its answer is empty")
        if self.fields.choices:
            return with_choices(ident, row, question.strip(), row[self.fields.choices], answer)
        return Item(ident, question.strip(), gold.strip(), row)


def read_task(path: Path) -> Task:
    """The task that a YAML file declares; whatever is wrong with it is a UsageError that says where."""
    document = strictyaml.read(path)
    if not isinstance(document.data, dict):
        raise UsageError(f"{document.at(())}: not a mapping.", f"Write {', '.join(UserTask.model_fields)}.")
    try:
        declared = UserTask.model_validate(document.data)
    except ValidationError as error:
        raise _refusal(document, error.errors(include_url=False)) from None
    file = path.parent / _expanded(declared.file, document)
    said = hashlib.sha256(declared.model_dump_json().encode()).hexdigest()
    return Task(
        declared.name,
        declared.answer_type,
        declared.read,
        system=declared.system,
        file=file,
        declaration=said,
    )


def _expanded(file: str, document: Document) -> Path:
    try:
        return Path(file).expanduser()
    except RuntimeError:  # nobody is called so
        raise UsageError(
            f"{document.at(('file',))}: file is {file[:40]!r}, and there is no such user.",
            "Write the whole path.",
        ) from None


def _filled(prompt: str, row: Row) -> str:
    """The prompt with fields of the row in place of their names; nothing else is looked up."""
    return PLACEHOLDER.sub(lambda match: field_text(row, match[1]), prompt)


def _refusal(document: Document, errors: list[ErrorDetails]) -> UsageError:
    """The most telling error in the words of the file: a misspelled key also makes the right one missing."""
    error = min(errors, key=lambda one: one["type"] != "extra_forbidden")
    keys = tuple(error["loc"])
    at, field = document.at(keys), ".".join(str(key) for key in keys)
    if error["type"] == "extra_forbidden":
        known = Fields.model_fields if len(keys) > 1 else UserTask.model_fields
        hint = suggestion(str(keys[-1]), known)
        return UsageError(f"{at}: unknown key {str(keys[-1])[:40]!r}.", f"{hint[:1].upper()}{hint[1:]}")
    if error["type"] == "missing":
        return UsageError(f"{at}: {field} is missing.", "A task needs name, file and answer_type.")
    reason = RULE if keys == ("name",) else str(error.get("ctx", {}).get("error", error["msg"]))
    value = _shown(error["input"]) if keys else ""
    return UsageError(f"{at}: {field}{value}{': ' if field else ''}{reason}.", "Correct the file.")


def _shown(value: Any) -> str:  # noqa: ANN401
    return f" is {str(value)[:40]!r}"
