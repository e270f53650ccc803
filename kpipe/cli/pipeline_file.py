"""Load a pipeline file, and the options shared by all commands that read one."""

from __future__ import annotations

import runpy
import traceback
from pathlib import Path

import click

from kpipe.cli.mistaken_paths import refuse_other_kinds
from kpipe.core.pipeline import Pipeline
from kpipe.errors import KpipeError, PipelineError
from kpipe.pipeline import DEFAULT_ROOT

__all__ = ["FILE", "ROOT", "SET", "load_pipeline"]

ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_ROOT,
    show_default=True,
    help="The folder of all results.",
)
SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="STAGE.FIELD=VALUE",
    help="Change a field of a stage, or the seed; repeatable.",
)
FILE = click.argument("file", type=click.Path(path_type=Path))


def load_pipeline(file: Path) -> Pipeline:
    """Return the `pipeline` that a Python file defines.

    Raises:
        PipelineError: the file is missing, raises an exception, or defines no `pipeline`.
    """
    refuse_other_kinds(file)
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
            fix="correct that line",
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
