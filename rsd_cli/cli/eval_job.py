"""An evaluation's run: what is missing in its folder is answered, then its results are written. Parses no options."""

from __future__ import annotations

import shlex
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from rsd_cli.cli import notes
from rsd_cli.cli.crash import Crash
from rsd_cli.cli.eval_folder import Folder, Made
from rsd_cli.cli.eval_plan import asked_prm, fingerprint, grading_versions
from rsd_cli.cli.eval_run import Pass, share, template_hashes
from rsd_cli.cli.interrupt import Interrupt
from rsd_cli.cli.trio import LoadedTrio
from rsd_cli.display.counting import counting
from rsd_cli.evaluation.grader import Grader
from rsd_cli.evaluation.results import samples_name

if TYPE_CHECKING:
    from pathlib import Path

    from rsd_cli.cli.eval_plan import Contender
    from rsd_cli.cli.shape import Shape
    from rsd_cli.cli.warm import FoundTrio
    from rsd_cli.decoding.trajectory import Settings
    from rsd_cli.evaluation.runs import Evaluation
    from rsd_cli.evaluation.taskdata import TaskData
    from rsd_cli.records import Role


@dataclass
class Job:
    """An evaluation with all that is known before it begins."""

    folder: Path
    trio: str
    field: tuple[Contender, ...]
    rows: dict[str, TaskData]
    found: FoundTrio
    shape: Shape
    base: Settings
    limit: int | None
    quiet: bool
    color: bool
    retry: bool

    def run(self, sizes: dict[Role, float]) -> Evaluation:
        """Answer what is missing and write the results; leaves with 130 or 143 where that was interrupted."""
        settings = fingerprint(self.found, self.field, self.shape, self.base, self.trio, self.rows)
        described = {"trio": self.trio, "prm": self.found.prm.name, **self.shape.described}
        with closing(Folder(self.folder, settings)) as folder:
            with Grader() as grader, Interrupt() as interrupt:
                passes = [
                    self._pass(task, each, described, grader) for task in self.rows for each in self.field
                ]
                share(passes)
                folder.check(passes)
                if any(each.missing for each in passes):
                    self._answer(passes, folder, interrupt)
            if interrupt():
                typer.echo(f"Stopped; the same command goes on with what {self.folder} has.", err=True)
                raise typer.Exit(interrupt.exit_code)
            return folder.finish(passes, self.limit, sizes)

    def _pass(self, task: str, contender: Contender, described: dict[str, Any], grader: Grader) -> Pass:
        data = self.rows[task]
        base = replace(self.base, system=data.task.system)
        settings = contender.settings(base, self.found.threshold)
        place = self.folder / samples_name(task, contender.name)
        return Pass(contender.name, settings, data, place, described, grader, self.retry)

    def _answer(self, passes: list[Pass], folder: Folder, interrupt: Interrupt) -> None:
        prm = asked_prm(self.found, self.field)
        crash = Crash(notes.read(), takes_notes=True)
        loaded = LoadedTrio(self.found.models, prm, self.shape, interrupt)
        total = sum(len(each.data.items) for each in passes)
        done = total - sum(len(each.missing) for each in passes)
        try:
            # All of them: a record without the target loaded can't say what that alone would have needed. And what
            # can't be loaded or used is refused before hours of work.
            loaded.wait_for_all()
            loaded.check_prm()
            for each in passes:
                loaded.check_templates(each.settings)
                loaded.check_pair(each.settings)
            command = shlex.join(["rsd", *sys.argv[1:]])
            folder.begin(Made(command, grading_versions(self.rows.values())))
            with counting("questions", total, done, quiet=self.quiet, color=self.color) as tell:
                for each in passes:
                    if not each.giver and each.missing and not interrupt():
                        try:
                            each.run(loaded, crash, tell)
                        finally:
                            folder.spent(each, template_hashes(loaded))
                for each in passes:
                    if each.giver and each.missing and not interrupt():
                        each.take(tell)
        finally:
            loaded.close()
            notes.withdraw()
