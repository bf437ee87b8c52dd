"""The report as one HTML file that asks for nothing else. Every text of models, files and users is escaped or data.

Its style and its script are files of this package; a policy in the page lets no others run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from rsd_cli.evaluation.report.problems import scripts
from rsd_cli.evaluation.report.sections import task_section
from rsd_cli.output import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from rsd_cli.evaluation.runs import Evaluation


def write_report(path: Path, evaluation: Evaluation) -> None:
    """Write `report.html`; it is there whole or not at all."""
    write_whole(path, [report(evaluation).encode("utf-8", "replace")])


def report(evaluation: Evaluation) -> str:
    """The whole page."""
    style, script = (_packed(name) for name in ("report.css", "report.js"))
    policy = f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; base-uri 'none'"
    tasks = ", ".join(run.task for run in evaluation.tasks)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>rsd eval: {escape(tasks)}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            _header(evaluation),
            "<main>",
            *(task_section(run, evaluation) for run in evaluation.tasks),
            BROWSER,
            _circumstances(evaluation),
            "</main>",
            scripts(evaluation),
            f"<script>{script}</script>",
            "</body>",
            "</html>\n",
        ]
    )


BROWSER = """
<section id="browser" aria-label="single problems">
<h2>Single problems</h2>
<div class="controls">
<select id="task" aria-label="task"></select>
<select id="filter" aria-label="which problems">
<option value="all">all problems</option>
<option value="right">right</option>
<option value="wrong">not right</option>
<option value="differs">strategies differ</option>
</select>
<input id="search" type="search" placeholder="search questions and answers" aria-label="search">
<span id="count" role="status"></span>
</div>
<div class="split">
<ol id="problems"></ol>
<article id="problem" tabindex="-1"></article>
</div>
<noscript>Single problems need JavaScript; everything above does not.</noscript>
</section>
"""


def _header(evaluation: Evaluation) -> str:
    models = evaluation.circumstances.models
    cast = " · ".join(
        f"{role} {escape(model.name)} ({model.parameters / 1e9:.2g}B)" for role, model in models.items()
    )
    times = evaluation.circumstances.times
    warning = "".join(
        f'<p class="warning">{escape(task)}: only {questions} questions, not comparable with the whole.</p>'
        for task, questions in evaluation.partial.items()
    )
    return (
        '<header><button id="theme" type="button">light or dark</button>'
        "<h1>Evaluation</h1>"
        f'<p class="quiet">{cast} · ended {escape(times.ended)}</p>{warning}</header>'
    )


def _circumstances(evaluation: Evaluation) -> str:
    said = json.dumps(asdict(evaluation.circumstances), ensure_ascii=False, indent=1)
    return f"<details><summary>Circumstances</summary><pre>{escape(said)}</pre></details>"


def _packed(name: str) -> str:
    return files("rsd_cli.evaluation.report").joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    """What a browser compares an inline style or script with before it heeds it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
