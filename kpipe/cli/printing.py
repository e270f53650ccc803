"""Verbatim text on the terminal."""

from __future__ import annotations

from rich.console import Console

__all__ = ["print_line"]


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print a line in a Rich style such as "bold", without markup, highlighting or wrapping."""
    # Paths may contain what looks like markup, and commands are there to be copied.
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
