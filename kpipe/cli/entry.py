"""The entry point: all commands, and how their errors are printed."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
import warnings

import click
from rich.console import Console

from kpipe import __version__
from kpipe.cli.benchmark import benchmark
from kpipe.cli.check import check
from kpipe.cli.plan import plan
from kpipe.cli.predict import predict
from kpipe.cli.preview import preview
from kpipe.cli.report import report
from kpipe.cli.run import run
from kpipe.errors import KpipeError
from kpipe.report.terminal import print_line

__all__ = ["commands", "main"]


def main() -> None:
    """Run the command line; exit with 2 after a `KpipeError`, with 1 after a bug in kpipe."""
    # Hide TensorFlow's start-up messages, but not its errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    errors = Console(stderr=True)
    warnings.showwarning = lambda message, *_, **__: print_line(
        errors, f"warning: {message}", "yellow"
    )
    try:
        commands(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _print_error(errors, "interrupted; finished stages and epochs are kept")
        sys.exit(130)
    except KpipeError as error:
        _print_error(errors, str(error))
        sys.exit(2)
    except Exception:
        print_line(errors, traceback.format_exc())
        _print_error(errors, "an unexpected error; finished stages and epochs are kept")
        sys.exit(1)


def _print_error(errors: Console, text: str) -> None:
    print_line(errors, f"error: {text}", "bold red")
    if sys.argv[1:2] == ["run"]:
        words = [word for word in sys.argv[1:] if word != "--fresh"]
        print_line(errors, f"  to resume: kpipe {shlex.join(words)}", "bold")


@click.group()
@click.version_option(__version__, prog_name="kpipe")
def commands() -> None:
    """Turn a folder of labelled photos into a small, fast, verified TFLite model."""


for command in (run, plan, check, preview, report, predict, benchmark):
    commands.add_command(command)
