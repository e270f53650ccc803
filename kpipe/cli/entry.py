"""The entry point: all commands, and how their errors are printed."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import sys
import traceback
import warnings
from typing import NoReturn

import click
from rich.console import Console

from kpipe import __version__
from kpipe.cli.benchmark import benchmark
from kpipe.cli.cache import cache
from kpipe.cli.check import check
from kpipe.cli.plan import plan
from kpipe.cli.predict import predict
from kpipe.cli.preview import preview
from kpipe.cli.report import report
from kpipe.cli.run import run
from kpipe.cli.signals import Interruption, interruptible
from kpipe.errors import KpipeError
from kpipe.report.terminal import print_line

__all__ = ["commands", "main"]


def main() -> None:
    """Run the command line.

    Exit with 2 after a `KpipeError`, with 1 after a bug in kpipe, and with 128 plus the number of
    the signal, such as 130 for Ctrl-C, after an interruption.
    """
    # Hide TensorFlow's start-up messages, but not its errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for stream in (sys.stdout, sys.stderr):
        _escape_unencodable(stream)
    errors = Console(stderr=True)
    warnings.showwarning = lambda message, *_, **__: print_line(
        errors, f"warning: {message}", "yellow"
    )
    with interruptible() as interruption:
        try:
            commands(standalone_mode=False)
        except click.ClickException as error:
            error.show()
            sys.exit(2)
        except (click.Abort, KeyboardInterrupt):
            _end_interrupted(errors, interruption)
        except KpipeError as error:
            _print_error(errors, str(error))
            sys.exit(2)
        except Exception:
            if interruption.number != signal.SIGINT:  # the terminal may be gone
                _end_interrupted(errors, interruption)
            print_line(errors, traceback.format_exc())
            _print_error(errors, "an unexpected error; finished stages and epochs are kept")
            sys.exit(1)


def _escape_unencodable(stream: object) -> None:
    """Print characters that the encoding of a terminal lacks as escapes."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _end_interrupted(errors: Console, interruption: Interruption) -> NoReturn:
    by = "" if interruption.number == signal.SIGINT else f" by {interruption.number.name}"
    with contextlib.suppress(OSError):  # after SIGHUP, the terminal is gone
        _print_error(errors, f"interrupted{by}; finished stages and epochs are kept")
    sys.exit(128 + interruption.number)


def _print_error(errors: Console, text: str) -> None:
    print_line(errors, f"error: {text}", "bold red")
    if sys.argv[1:2] == ["run"]:
        words = [word for word in sys.argv[1:] if word != "--fresh"]
        print_line(errors, f"  to resume: kpipe {shlex.join(words)}", "bold")


@click.group()
@click.version_option(__version__, prog_name="kpipe")
def commands() -> None:
    """Turn a folder of labelled photos into a small, fast, verified TFLite model."""


for command in (run, plan, check, preview, report, predict, benchmark, cache):
    commands.add_command(command)
