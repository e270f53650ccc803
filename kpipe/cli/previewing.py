"""The command that shows what a network will see: preview."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
from rich.console import Console

from kpipe.cli.declaration import FILE, ROOT, SET, load_pipeline
from kpipe.cli.lines import line
from kpipe.cli.stderr_log import chatter_kept_apart
from kpipe.core.pipeline import Pipeline
from kpipe.core.runner import run as run_pipeline
from kpipe.core.store import translate_disk_errors
from kpipe.errors import PipelineError
from kpipe.report.collection import collect
from kpipe.report.terminal import Progress

__all__ = ["preview"]


@click.command()
@FILE
@SET
@ROOT
def preview(file: Path, settings: tuple[str, ...], root: Path) -> None:
    """Show photos of FILE's pipeline beside what the network will see of them.

    Runs the stages that Augment reads, and no training; what is done already is skipped.
    """
    pipeline = load_pipeline(file).with_settings(settings)
    names = [stage.name for stage in pipeline.stages]
    if "Augment" not in names:
        raise PipelineError(
            f"{file} declares no Augment: the network will see the photos as they are",
            expected="an Augment stage",
            received=", ".join(names),
            fix="add Augment() to the stages, after Data",
        )
    begin = _up_to(pipeline, names.index("Augment"))
    console = Console()
    with translate_disk_errors(root), chatter_kept_apart(root), Progress(console) as progress:
        result = run_pipeline(begin, root, listeners=(progress.hear,))
        sheet = shutil.copy2(collect(result.folder)["contact_sheet"], result.folder)
    line(console, f"contact sheet: {sheet}")


def _up_to(pipeline: Pipeline, last: int) -> Pipeline:
    """The stage of that index, and those before it that it reads; none may be there for nothing."""
    links, wanted = pipeline.links(), {last}
    for index in range(last, -1, -1):
        if index in wanted:
            wanted.update(*links[index].values())
    return Pipeline(pipeline.name, [pipeline.stages[i] for i in sorted(wanted)], pipeline.seed)
