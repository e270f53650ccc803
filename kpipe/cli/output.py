"""Print lines on the terminal without Rich, which kpipe-lite does not install."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from kpipe.printable import printable

__all__ = ["print_text", "run_again"]


def print_text(text: str, *, error: bool = False, **style: Any) -> None:
    """Print lines without invisible characters.

    Args:
        text: one or more lines.
        error: print to stderr instead of stdout.
        style: arguments of `click.style`, such as `bold=True`.
    """
    # Without a stream, click would write UTF-8 to a terminal whose encoding is ASCII.
    click.secho(printable(text, lines=True), sys.stderr if error else sys.stdout, **style)


def run_again() -> str:
    """Return the command line, to paste into a shell, without `--fresh`."""
    return f"kpipe {shlex.join(word for word in sys.argv[1:] if word != '--fresh')}"
