"""The entry point: all commands, and how their errors are printed."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

import click

from kpipe import __version__
from kpipe.cli.output import print_text, run_again
from kpipe.cli.signals import Interruption, interruptible
from kpipe.errors import InstallationError, KpipeError
from kpipe.installation import refuse_mixed_versions, translate_missing_packages

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
    warnings.showwarning = lambda message, *_, **__: print_text(
        f"warning: {message}", error=True, fg="yellow"
    )
    with interruptible() as interruption:
        try:
            refuse_mixed_versions()
            with translate_missing_packages("this command"):
                commands(standalone_mode=False)
        except click.ClickException as error:
            error.show()
            sys.exit(2)
        except (click.Abort, KeyboardInterrupt):
            _end_interrupted(interruption)
        except KpipeError as error:
            _print_error(str(error), getattr(error, "__notes__", ()))
            sys.exit(2)
        except Exception:
            if interruption.number != signal.SIGINT:  # the terminal may be gone
                _end_interrupted(interruption)
            print_text(traceback.format_exc(), error=True)
            _print_error("an unexpected error; finished stages and epochs are kept")
            sys.exit(1)


def _escape_unencodable(stream: object) -> None:
    """Print characters that the encoding of a terminal lacks as escapes."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _end_interrupted(interruption: Interruption) -> NoReturn:
    by = "" if interruption.number == signal.SIGINT else f" by {interruption.number.name}"
    with contextlib.suppress(OSError):  # after SIGHUP, the terminal is gone
        _print_error(f"interrupted{by}; finished stages and epochs are kept")
    sys.exit(128 + interruption.number)


def _print_error(text: str, notes: Sequence[str] = ()) -> None:
    """Print an error, and what to do next: its notes or, after `run`, how to resume."""
    print_text(f"error: {text}", error=True, bold=True, fg="red")
    if sys.argv[1:2] == ["run"] and not notes:
        notes = [f"to resume: {run_again()}"]
    for note in notes:
        print_text(f"  {note}", error=True, bold=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kpipe")
def commands() -> None:
    """Turn a folder of labelled photos into a small, fast, verified TFLite model."""


def _load(name: str) -> click.Command:
    """Return a command or, if a package that it imports is not installed, one that says so."""
    try:
        with translate_missing_packages(f"kpipe {name}"):
            command: click.Command = getattr(importlib.import_module(f"kpipe.cli.{name}"), name)
    except InstallationError as error:
        return _unavailable(name, error)
    return command


def _unavailable(name: str, error: InstallationError) -> click.Command:
    @click.command(
        name,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        add_help_option=False,
        short_help="Needs packages that are not installed.",
    )
    def refuse() -> None:
        raise error

    return refuse


for _name in (
    "init",
    "doctor",
    "run",
    "plan",
    "check",
    "preview",
    "report",
    "predict",
    "benchmark",
    "cache",
):
    commands.add_command(_load(_name))
