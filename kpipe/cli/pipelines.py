"""Commands on a pipeline file: run, plan, report."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kpipe.cli.declaration import FILE, ROOT, SET, load_pipeline
from kpipe.cli.lines import line
from kpipe.cli.stderr_log import chatter_kept_apart
from kpipe.core.runner import plan as plan_steps
from kpipe.core.runner import run as run_pipeline
from kpipe.core.runner import run_folder
from kpipe.core.store import translate_disk_errors
from kpipe.report.terminal import Progress, models_table

__all__ = ["plan", "report", "run"]


@click.command()
@FILE
@SET
@ROOT
@click.option("--fresh", is_flag=True, help="Make every stage again, whatever is cached.")
def run(file: Path, settings: tuple[str, ...], root: Path, fresh: bool) -> None:
    """Carry out the pipeline that FILE declares; what is done already is skipped."""
    pipeline = load_pipeline(file).with_settings(settings)
    console = Console()
    with translate_disk_errors(root):
        with chatter_kept_apart(root), Progress(console) as progress:
            result = run_pipeline(pipeline, root, fresh=fresh, listeners=(progress.hear,))
        if not result.made:
            console.print("nothing to do: every stage is cached (--fresh makes them again)")
        table = models_table(result.folder)
        if table:
            console.print(table)
        page = _write_report(result.folder, again=bool(result.made))
    line(console, f"results: {result.folder}\nreport:  {page}")


@click.command()
@FILE
@SET
@ROOT
def plan(file: Path, settings: tuple[str, ...], root: Path) -> None:
    """Show what `run` would do: which stages are cached, which run, and why."""
    pipeline = load_pipeline(file).with_settings(settings)
    table = Table("stage", "status", "why", title=f"{pipeline.name}, seed {pipeline.seed}")
    colors = {"cached": "green", "continues": "yellow", "runs": "cyan", "waits": "dim"}
    for step in plan_steps(pipeline, root):
        table.add_row(step.stage, Text(step.status, colors[step.status]), Text(step.why))
    Console().print(table)


@click.command()
@click.argument("what", type=click.Path(path_type=Path))
@SET
@ROOT
def report(what: Path, settings: tuple[str, ...], root: Path) -> None:
    """Write the HTML report of WHAT: a pipeline file, or the folder of a run."""
    folder = what
    if not what.is_dir():
        folder = run_folder(load_pipeline(what).with_settings(settings), root)
    with translate_disk_errors(folder):
        line(Console(), f"report: {_write_report(folder, again=True)}")


def _write_report(folder: Path, *, again: bool) -> Path:
    page = folder / "report.html"
    if page.exists() and not again:
        return page
    # Only now: drawing takes longer to load than a run with nothing to do takes in all.
    from kpipe.report import write_report

    return write_report(folder)
