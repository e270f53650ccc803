"""The init command: a pipeline file for a folder of photos."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from kpipe.atomic import write_text
from kpipe.cli.pipeline_file import ROOT, load_pipeline
from kpipe.core.disk_errors import translate_disk_errors, translate_file_errors
from kpipe.errors import DataError, PipelineError
from kpipe.pipeline import DEFAULT_ROOT
from kpipe.report.terminal import Progress, print_line

if TYPE_CHECKING:
    from kpipe.data import Manifest

__all__ = ["init"]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--for",
    "target",
    type=click.Choice(["phone", "server"]),
    default="phone",
    show_default=True,
    help="Where the model will run.",
)
@click.option(
    "--effort",
    type=click.Choice(["quick", "standard", "best"]),
    default="standard",
    show_default=True,
    help="How long to train.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("pipeline.py"),
    show_default=True,
    help="The file to write.",
)
@click.option("--force", is_flag=True, help="Write over an existing file.")
@ROOT
def init(folder: Path, target: str, effort: str, output: Path, force: bool, root: Path) -> None:
    """Look at the photos in FOLDER, and write a pipeline file for them.

    FOLDER holds a folder for each class, or train, validation and test folders that do. Each stage
    of the file stands below the reason for it.
    """
    from kpipe.starter import choose, look, machine_speed, minutes, render
    from kpipe.starter.cautions import cautions

    _refuse(folder, output, force)
    console = Console()
    manifest = _photos(folder, root, console)
    facts = look(manifest)
    choices = choose(facts, folder.as_posix(), target, effort)  # type: ignore[arg-type]
    text = render(folder.resolve().name, choices, str(facts))
    with translate_file_errors(output, "--output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, text)
    load_pipeline(output)
    print_line(console, str(facts))
    for line in cautions(manifest, facts, folder):
        print_line(console, f"warning: {line}", "yellow")
    least, most = minutes(facts, choices, machine_speed())
    path = shlex.quote(f"./{output}" if str(output).startswith("-") else str(output))
    if root != DEFAULT_ROOT:
        path += f" --root {shlex.quote(str(root))}"
    print_line(console, f"wrote {output}", "bold")
    time = _duration(least, most)
    print_line(console, f"next: kpipe run {path}   (about {time} here)", "bold")
    print_line(
        console,
        f"also: kpipe check {shlex.quote(str(folder))} audits the photos; "
        f"kpipe plan {path} says what a run would do",
    )


def _refuse(folder: Path, output: Path, force: bool) -> None:
    if folder.is_file():
        quoted = shlex.quote(str(folder))
        raise DataError(
            f"{folder} is a file",
            expected="a folder that holds a folder of photos for each class",
            fix=f"a table is declared in a pipeline file; kpipe check {quoted} audits its photos",
        )
    if output.is_dir():
        raise PipelineError(
            f"{output} is a folder",
            expected="a file to write",
            fix=f"--output {shlex.quote(str(output / 'pipeline.py'))}",
        )
    if output.suffix != ".py":
        raise PipelineError(
            f"{output} is no name of a Python file",
            expected="a name that ends in .py",
            fix=f"--output {shlex.quote(str(output.with_suffix('.py')))}",
        )
    if (output.exists() or output.is_symlink()) and not force:
        raise PipelineError(
            f"{output} already exists",
            expected="a new file",
            fix="pass --force to write over it, or --output FILE",
        )


def _photos(folder: Path, root: Path, console: Console) -> Manifest:
    """Read the photos as `check` does, into the same cache."""
    from kpipe.data import from_folder
    from kpipe.stages.data import IMAGE_CACHE

    with translate_disk_errors(root):
        shared = root / ".cache" / "shared"
        shared.mkdir(parents=True, exist_ok=True)
        with Progress(console) as progress:

            def show(done: int, total: int) -> None:
                progress.show({"event": "step", "what": "reading", "done": done, "total": total})

            # Broken files are no reason to write no file: `check` names them, and so does a run.
            manifest = from_folder(
                folder, max_unreadable=None, cache=shared / IMAGE_CACHE, progress=show
            )
    if len(manifest.classes) < 2 or manifest.table.empty:
        raise DataError(
            f"{folder} holds too few classes of photos: {len(manifest.classes)}",
            expected="two classes or more, each a folder of photos",
            received=", ".join(manifest.classes) or "no class folder",
            fix="put the photos of each class into a folder named after it",
        )
    return manifest


def _duration(least: int, most: int) -> str:
    """Describe a range of minutes."""
    if most <= 120:
        return f"{least} to {most} minutes"
    return f"{max(1, round(least / 60))} to {round(most / 60)} hours"
