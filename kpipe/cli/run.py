"""The run command."""

from __future__ import annotations

import warnings
from pathlib import Path

import click
from rich.console import Console

from kpipe.cli.output import JSON, own_stdout, print_json, run_again
from kpipe.cli.pipeline_file import FILE, ROOT, SET, load_pipeline
from kpipe.cli.stderr_log import log_native_stderr
from kpipe.core.disk_errors import translate_disk_errors
from kpipe.core.journal import Event
from kpipe.core.pipeline import Pipeline
from kpipe.core.runner import RunResult, run_folder
from kpipe.core.runner import run as run_pipeline
from kpipe.errors import KpipeError
from kpipe.report.terminal import Progress, models_table, print_line

__all__ = ["run"]


@click.command()
@FILE
@SET
@ROOT
@click.option("--fresh", is_flag=True, help="Run every stage again, ignoring cached results.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors and warnings only.")
@JSON
def run(
    file: Path, settings: tuple[str, ...], root: Path, fresh: bool, quiet: bool, as_json: bool
) -> None:
    """Run the pipeline that FILE declares, skipping finished stages.

    Exits with 0 if all stages have a result, with 2 if one failed or refused its result, with 1
    after a bug in kpipe, and with 130 after Ctrl-C (143 after SIGTERM); the same command then goes
    on. After an error, --json prints nothing on the standard output.
    """
    with own_stdout(as_json):
        result, page = _carry_out(
            load_pipeline(file).with_settings(settings), root, fresh, quiet or as_json
        )
    if as_json:
        print_json(
            "run",
            folder=str(result.folder),
            report=str(page),
            made=result.made,
            skipped=result.skipped,
        )


def _carry_out(pipeline: Pipeline, root: Path, fresh: bool, quiet: bool) -> tuple[RunResult, Path]:
    """Run the pipeline, print what happens, and return the result and its report."""
    console = Console(quiet=quiet)
    refusals: list[Event] = []

    def hear(event: Event) -> None:
        if event["event"] == "stage_refused":
            refusals.append(event)

    with translate_disk_errors(root):
        with log_native_stderr(root), Progress(console) as progress:
            try:
                result = run_pipeline(pipeline, root, fresh=fresh, listeners=(progress.show, hear))
            except KpipeError as error:
                if refusals:
                    _report_refused(pipeline, root, console)
                    error.add_note(f"then, with what you change: {run_again()}")
                raise
        if not result.made:
            console.print("nothing to do: every stage is cached (--fresh runs them again)")
        table = models_table(result.folder)
        if table:
            console.print(table)
        page = result.folder / "report.html"
        if result.made or not page.exists():
            _write_report(result.folder)
    print_line(console, f"results: {result.folder}\nreport:  {page}")
    return result, page


def _report_refused(pipeline: Pipeline, root: Path, console: Console) -> None:
    """Write the report of a refused run; without one, the refusal is still what the user needs."""
    try:
        page = _write_report(run_folder(pipeline, root))
    except Exception as error:
        warnings.warn(f"the report could not be written: {error}", stacklevel=2)
    else:
        print_line(console, f"report:  {page}")


def _write_report(folder: Path) -> Path:
    # Imported late: loading matplotlib takes longer than a run of cached stages.
    from kpipe.report import write_report

    return write_report(folder)
