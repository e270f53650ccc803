"""The command line: `kpipe run | plan | report | predict`."""

from __future__ import annotations

import contextlib
import os
import runpy
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kpipe import __version__
from kpipe.core.pipeline import Pipeline
from kpipe.core.runner import plan as plan_steps
from kpipe.core.runner import run as run_pipeline
from kpipe.core.runner import run_folder
from kpipe.core.store import disk_watched
from kpipe.errors import DataError, KpipeError, PipelineError
from kpipe.report.terminal import Progress, models_table

__all__ = ["main"]

_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("saved_models"),
    show_default=True,
    help="The folder of all results.",
)
_SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="STAGE.FIELD=VALUE",
    help="Change a field of a stage, or the seed; may stand several times.",
)
_FILE = click.argument("file", type=click.Path(path_type=Path))


def main() -> None:
    """Entry point; a refusal ends with exit code 2 and no traceback, a defect of kpipe with 1."""
    # TensorFlow's own chatter on the way in; errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    errors = Console(stderr=True)
    warnings.showwarning = lambda message, *_, **__: _line(errors, f"warning: {message}", "yellow")
    try:
        commands(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _tell(errors, "interrupted; nothing that was finished is lost")
        sys.exit(130)
    except KpipeError as error:
        _tell(errors, str(error))
        sys.exit(2)
    except Exception:
        _line(errors, traceback.format_exc())
        _tell(errors, "an unexpected error; finished stages and epochs are kept")
        sys.exit(1)


def _tell(errors: Console, text: str) -> None:
    _line(errors, f"error: {text}", "bold red")
    if sys.argv[1:2] == ["run"]:
        words = [word for word in sys.argv[1:] if word != "--fresh"]
        _line(errors, f"  to resume: kpipe {shlex.join(words)}", "bold")


def _line(console: Console, text: str, style: str = "") -> None:
    # As it stands: paths may hold what Rich takes for markup, and commands are there to be copied.
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


@click.group()
@click.version_option(__version__, prog_name="kpipe")
def commands() -> None:
    """From a folder of labelled photos to a small, fast, checked TFLite model."""


@commands.command()
@_FILE
@_SET
@_ROOT
@click.option("--fresh", is_flag=True, help="Make every stage again, whatever is cached.")
def run(file: Path, settings: tuple[str, ...], root: Path, fresh: bool) -> None:
    """Carry out the pipeline that FILE declares; what is done already is skipped."""
    pipeline = load_pipeline(file).with_settings(settings)
    console = Console()
    with disk_watched(root):
        with _native_chatter(root), Progress(console) as progress:
            result = run_pipeline(pipeline, root, fresh=fresh, listeners=(progress.hear,))
        if not result.made:
            console.print("nothing to do: every stage is cached (--fresh makes them again)")
        table = models_table(result.folder)
        if table:
            console.print(table)
        page = _write_report(result.folder, again=bool(result.made))
    _line(console, f"results: {result.folder}\nreport:  {page}")


@commands.command()
@_FILE
@_SET
@_ROOT
def plan(file: Path, settings: tuple[str, ...], root: Path) -> None:
    """Show what `run` would do: which stages are cached, which run, and why."""
    pipeline = load_pipeline(file).with_settings(settings)
    table = Table("stage", "status", "why", title=f"{pipeline.name}, seed {pipeline.seed}")
    colors = {"cached": "green", "continues": "yellow", "runs": "cyan", "waits": "dim"}
    for step in plan_steps(pipeline, root):
        table.add_row(step.stage, Text(step.status, colors[step.status]), Text(step.why))
    Console().print(table)


@commands.command()
@click.argument("what", type=click.Path(path_type=Path))
@_SET
@_ROOT
def report(what: Path, settings: tuple[str, ...], root: Path) -> None:
    """Write the HTML report of WHAT: a pipeline file, or the folder of a run."""
    folder = what
    if not what.is_dir():
        folder = run_folder(load_pipeline(what).with_settings(settings), root)
    with disk_watched(folder):
        _line(Console(), f"report: {_write_report(folder, again=True)}")


@commands.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many labels for each image.",
)
def predict(model: Path, images: tuple[Path, ...], top: int) -> None:
    """Classify IMAGES (files or folders) by an exported MODEL.tflite."""
    from kpipe.lite import Classifier

    classifier = Classifier(model)
    refused = []
    for path in _image_files(images):
        try:
            (result,) = classifier.predict(path)
        except DataError as error:
            refused.append(error.what)
            continue
        ranked = sorted(result.probabilities.items(), key=lambda pair: -pair[1])
        best = "  ".join(f"{label} {share:.1%}" for label, share in ranked[:top])
        click.echo(f"{path}: {best}")
    if refused:
        raise DataError("\n".join(refused), fix="the other images were classified, see above")


def load_pipeline(file: Path) -> Pipeline:
    """The `pipeline` that a Python file defines.

    Raises:
        PipelineError: no such file, a file that fails, or one without a `pipeline`.
    """
    if not file.is_file():
        raise PipelineError(
            f"there is no pipeline file {file}",
            expected="a Python file that defines `pipeline`",
            received="a folder" if file.is_dir() else "nothing at that path",
            fix="check the path; pipelines/quickstart.py is an example",
        )
    try:
        names = runpy.run_path(str(file))
    except KpipeError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(file)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else "?")
        raise PipelineError(
            f"{file}, line {line}: the pipeline file fails",
            received=f"{type(error).__name__}: {error}",
            fix="mend that line",
        ) from error
    pipeline = names.get("pipeline")
    if not isinstance(pipeline, Pipeline):
        raise PipelineError(
            f"{file} does not define `pipeline`",
            expected="pipeline = Pipeline(name, [stages], seed=...)",
            received="no such name" if pipeline is None else f"a {type(pipeline).__name__}",
            fix="assign the Pipeline to the name `pipeline`",
        )
    return pipeline


def _image_files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        found = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if not found:
            raise DataError(f"there are no images in {path}", expected="image files in the folder")
        yield from found


def _write_report(folder: Path, *, again: bool) -> Path:
    page = folder / "report.html"
    if page.exists() and not again:
        return page
    # Only now: drawing takes longer to load than a run with nothing to do takes in all.
    from kpipe.report import write_report

    return write_report(folder)


@contextlib.contextmanager
def _native_chatter(root: Path) -> Iterator[None]:
    """What C++ code prints to stderr goes to a file instead of into the progress display."""
    (root / ".cache").mkdir(parents=True, exist_ok=True)
    shown = os.dup(2)
    python_stderr = sys.stderr
    with (root / ".cache" / "native.log").open("ab") as log:
        os.dup2(log.fileno(), 2)
        sys.stderr = os.fdopen(os.dup(shown), "w", buffering=1)
        try:
            yield
        finally:
            sys.stderr.close()
            sys.stderr = python_stderr
            os.dup2(shown, 2)
            os.close(shown)
