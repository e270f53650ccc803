"""The report command."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.console import Console

from kpipe.cli.pipeline_file import ROOT, SET, load_pipeline
from kpipe.core.disk_errors import translate_file_errors
from kpipe.core.runner import run_folder
from kpipe.report.terminal import print_line

__all__ = ["report"]


@click.command()
@click.argument("source", metavar="FILE|FOLDER", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), help="Write the page to this file.")
@SET
@ROOT
def report(source: Path, html: Path | None, settings: tuple[str, ...], root: Path) -> None:
    """Write the HTML report of a run, named by its pipeline FILE or its FOLDER.

    If the run's folder is read-only, the page is written to the current folder.
    """
    folder = source
    if not source.is_dir():
        folder = run_folder(load_pipeline(source).with_settings(settings), root)
    from kpipe.report import write_report  # loads matplotlib

    page = html or folder / "report.html"
    if not html and folder.is_dir() and not os.access(folder, os.W_OK):
        page = Path(f"report-{folder.parent.name}-{folder.name}.html")
    with translate_file_errors(page, "--html"):
        print_line(Console(), f"report: {write_report(folder, page)}")
