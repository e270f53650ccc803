"""The entry point: the group of all commands, and what their errors look like."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
import warnings

import click
from rich.console import Console

from kpipe import __version__
from kpipe.cli.benchmarking import benchmark
from kpipe.cli.checking import check
from kpipe.cli.lines import line
from kpipe.cli.pipelines import plan, report, run
from kpipe.cli.prediction import predict
from kpipe.cli.previewing import preview
from kpipe.errors import KpipeError

__all__ = ["commands", "main"]


def main() -> None:
    """Entry point; a refusal ends with exit code 2 and no traceback, a defect of kpipe with 1."""
    # TensorFlow's own chatter on the way in; errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    errors = Console(stderr=True)
    warnings.showwarning = lambda message, *_, **__: line(errors, f"warning: {message}", "yellow")
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
        line(errors, traceback.format_exc())
        _tell(errors, "an unexpected error; finished stages and epochs are kept")
        sys.exit(1)


def _tell(errors: Console, text: str) -> None:
    line(errors, f"error: {text}", "bold red")
    if sys.argv[1:2] == ["run"]:
        words = [word for word in sys.argv[1:] if word != "--fresh"]
        line(errors, f"  to resume: kpipe {shlex.join(words)}", "bold")


@click.group()
@click.version_option(__version__, prog_name="kpipe")
def commands() -> None:
    """From a folder of labelled photos to a small, fast, checked TFLite model."""


for command in (run, plan, check, preview, report, predict, benchmark):
    commands.add_command(command)
