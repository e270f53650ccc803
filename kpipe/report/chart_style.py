"""How every picture of the report is drawn: one style, one palette, SVG text as the result."""

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
    """A figure of so many inches, and the style while it is drawn and turned to text."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def as_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element; equal figures give equal text."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    # Inside a page, what stands before the element (the XML declaration) has no place.
    return text.getvalue()[text.getvalue().index("<svg") :]
