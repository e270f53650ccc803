"""The plan command."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kpipe.cli.pipeline_file import FILE, ROOT, SET, load_pipeline
from kpipe.core import runner
from kpipe.printable import printable

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
def plan(file: Path, settings: tuple[str, ...], root: Path) -> None:
    """Show what `run` would do: which stages are cached, which would run, and why."""
    pipeline = load_pipeline(file).with_settings(settings)
    table = Table("stage", "status", "why", title=f"{pipeline.name}, seed {pipeline.seed}")
    for planned in runner.plan(pipeline, root):
        status = Text(planned.status, _COLORS[planned.status])
        table.add_row(planned.stage, status, Text(printable(planned.why)))
    Console().print(table)
