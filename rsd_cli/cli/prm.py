"""`rsd prm`: reward models: score, train, calibrate, import, convert."""

from __future__ import annotations

import typer

from rsd_cli.cli import prm_calibrate, prm_convert, prm_import, prm_score, prm_train

app = typer.Typer(help="Reward models: score, train, calibrate, import, convert.", no_args_is_help=True)
app.command("score")(prm_score.score)
app.command("calibrate")(prm_calibrate.calibrate)
app.command("import")(prm_import.import_head)
app.command("convert")(prm_convert.convert_checkpoint)
app.command("train")(prm_train.train)
