"""Print lines on the terminal without Rich, which kpipe-lite does not install."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import click

from kpipe.printable import printable

__all__ = ["JSON", "own_stdout", "print_json", "print_text", "run_again"]

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


def print_text(text: str, *, error: bool = False, **style: Any) -> None:
    """Print lines without invisible characters.

    Args:
        text: one or more lines.
        error: print to stderr instead of stdout.
        style: arguments of `click.style`, such as `bold=True`.
    """
    # Without a stream, click would write UTF-8 to a terminal whose encoding is ASCII.
    click.secho(printable(text, lines=True), sys.stderr if error else sys.stdout, **style)


def print_json(command: str, **content: Any) -> None:
    """Print what a command found, as `{"command": its name, ...}` in ASCII, for any terminal."""
    print_text(json.dumps({"command": command, **content}))


@contextlib.contextmanager
def own_stdout(as_json: bool) -> Iterator[None]:
    """Send what other code prints to stderr, such as Keras' downloads, if stdout is for JSON."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def run_again() -> str:
    """Return the command line, to paste into a shell, without `--fresh`."""
    return f"kpipe {shlex.join(word for word in sys.argv[1:] if word != '--fresh')}"
