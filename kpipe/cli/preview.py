"""The preview command."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
from rich.console import Console

from kpipe.cli.pipeline_file import FILE, ROOT, SET, load_pipeline
from kpipe.cli.stderr_log import log_native_stderr
from kpipe.core.disk_errors import translate_disk_errors
from kpipe.core.pipeline import Pipeline
from kpipe.core.runner import run as run_pipeline
from kpipe.errors import PipelineError
from kpipe.report.collection import collect_run
from kpipe.report.terminal import Progress, print_line

__all__ = ["preview"]


@click.command()
@FILE
@SET
@ROOT
def preview(file: Path, settings: tuple[str, ...], root: Path) -> None:
    """Show photos of the pipeline in FILE beside their augmented versions.

    Runs only the stages that Augment reads, without training; finished stages are skipped.
    """
    pipeline = load_pipeline(file).with_settings(settings)
    names = [stage.name for stage in pipeline.stages]
    if "Augment" not in names:
        raise PipelineError(
            f"{file} declares no Augment: the network is trained on unchanged photos",
            expected="an Augment stage",
            received=", ".join(names),
            fix="add Augment() to the stages, after Data",
        )
    start = _up_to(pipeline, names.index("Augment"))
    console = Console()
    with translate_disk_errors(root), log_native_stderr(root), Progress(console) as progress:
        result = run_pipeline(start, root, listeners=(progress.show,))
        sheet = shutil.copy2(collect_run(result.folder)["contact_sheet"], result.folder)
    print_line(console, f"contact sheet: {sheet}")


def _up_to(pipeline: Pipeline, last: int) -> Pipeline:
    """Return the pipeline of a stage and the stages it depends on."""
    links, wanted = pipeline.links(), {last}
    for index in range(last, -1, -1):
        if index in wanted:
            wanted.update(*links[index].values())
    return Pipeline(pipeline.name, [pipeline.stages[i] for i in sorted(wanted)], pipeline.seed)
