"""The style and palette of every chart, and its SVG text."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["BLUE", "GREEN", "GREY", "RED", "as_svg", "new_figure"]

BLUE, GREEN, GREY, RED = "#0b6bcb", "#15803d", "#8a8f98", "#c2410c"

_STYLE: Any = {"svg.hashsalt": "kpipe", "svg.fonttype": "none", "font.size": 9}


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of a size in inches; draw and render it inside the block, for the style."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def as_svg(figure: Figure) -> str:
    """Return the figure as an `<svg>` element; equal figures give equal text."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    # Drop the XML declaration, which is invalid inside a page.
    return text.getvalue()[text.getvalue().index("<svg") :]
