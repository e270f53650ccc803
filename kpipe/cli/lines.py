"""Text on the terminal, as it stands."""

from __future__ import annotations

from rich.console import Console

__all__ = ["line"]


def line(console: Console, text: str, style: str = "") -> None:
    """Print one line.

    Args:
        console: where.
        text: shown as it is, whatever markup it may look like.
        style: of Rich, such as "bold".
    """
    # Paths may hold what Rich takes for markup, and commands are there to be copied.
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
