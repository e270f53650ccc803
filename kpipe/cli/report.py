"""The report command."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from kpipe.cli.pipeline_file import ROOT, SET, load_pipeline
from kpipe.core.disk_errors import translate_disk_errors
from kpipe.core.runner import run_folder
from kpipe.report.terminal import print_line

__all__ = ["report"]


@click.command()
@click.argument("source", metavar="FILE|FOLDER", type=click.Path(path_type=Path))
@SET
@ROOT
def report(source: Path, settings: tuple[str, ...], root: Path) -> None:
    """Write the HTML report of a run, named by its pipeline FILE or its FOLDER."""
    folder = source
    if not source.is_dir():
        folder = run_folder(load_pipeline(source).with_settings(settings), root)
    from kpipe.report import write_report  # loads matplotlib

    with translate_disk_errors(folder):
        print_line(Console(), f"report: {write_report(folder)}")
