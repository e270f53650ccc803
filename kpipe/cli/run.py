"""The run command."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from kpipe.cli.pipeline_file import FILE, ROOT, SET, load_pipeline
from kpipe.cli.stderr_log import log_native_stderr
from kpipe.core.disk_errors import translate_disk_errors
from kpipe.core.runner import run as run_pipeline
from kpipe.report.terminal import Progress, models_table, print_line

__all__ = ["run"]


@click.command()
@FILE
@SET
@ROOT
@click.option("--fresh", is_flag=True, help="Run every stage again, ignoring cached results.")
def run(file: Path, settings: tuple[str, ...], root: Path, fresh: bool) -> None:
    """Run the pipeline that FILE declares, skipping finished stages."""
    pipeline = load_pipeline(file).with_settings(settings)
    console = Console()
    with translate_disk_errors(root):
        with log_native_stderr(root), Progress(console) as progress:
            result = run_pipeline(pipeline, root, fresh=fresh, listeners=(progress.show,))
        if not result.made:
            console.print("nothing to do: every stage is cached (--fresh runs them again)")
        table = models_table(result.folder)
        if table:
            console.print(table)
        page = result.folder / "report.html"
        if result.made or not page.exists():
            # Imported late: loading matplotlib takes longer than a run of cached stages.
            from kpipe.report import write_report

            write_report(result.folder)
    print_line(console, f"results: {result.folder}\nreport:  {page}")
