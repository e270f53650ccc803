"""The plan command."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kpipe.cli.output import JSON, own_stdout, print_json
from kpipe.cli.pipeline_file import FILE, ROOT, SET, load_pipeline
from kpipe.core import runner
from kpipe.printable import printable
from kpipe.report.terminal import print_line

__all__ = ["plan"]

_COLORS = {
    "cached": "green",
    "continues": "yellow",
    "refused": "red",
    "runs": "cyan",
    "waits": "dim",
}


@click.command()
@FILE
@SET
@ROOT
@JSON
def plan(file: Path, settings: tuple[str, ...], root: Path, as_json: bool) -> None:
    """Show what `run` would do: which stages are cached, which would run, and why."""
    with own_stdout(as_json):
        pipeline = load_pipeline(file).with_settings(settings)
        stages = runner.plan(pipeline, root)
    if as_json:
        found = [dataclasses.asdict(planned) for planned in stages]
        print_json("plan", pipeline=pipeline.name, seed=pipeline.seed, stages=found)
        return
    table = Table("stage", "status", "why", title=f"{pipeline.name}, seed {pipeline.seed}")
    console = Console()
    for planned in stages:
        status = Text(planned.status, _COLORS[planned.status])
        table.add_row(planned.stage, status, Text(printable(planned.why)))
    console.print(table)
    for what in dict.fromkeys(what for planned in stages for what in planned.fetches):
        print_line(console, f"a run needs {what} when it begins")
