"""The report's pictures, as SVG text to stand inside the page."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["confusion_matrix", "learning_curves"]

_STYLE: Any = {"svg.hashsalt": "kpipe", "svg.fonttype": "none", "font.size": 9}


def learning_curves(training: dict[str, Any]) -> str:
    """Loss and accuracy by epoch; phases, the switch of the optimizer and the kept epoch marked.

    Args:
        training: `history` (name -> a value an epoch; "phase" is its number), `switched_at`,
            `best_epoch`, `title`.
    """
    history = training["history"]
    phases = history.get("phase", [])
    begins = [n for n in range(1, len(phases)) if phases[n] != phases[n - 1]]
    epochs = range(1, len(next(iter(history.values()))) + 1)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 2.6), layout="constrained")
        for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            for key, label, color in (
                (name, "train", "#8a8f98"),
                (f"val_{name}", "validation", "#0b6bcb"),
            ):
                if key in history:
                    axes.plot(epochs, history[key], label=label, color=color, marker=".")
            # Epochs count from 1 here: a line stands between the two that it divides.
            for n in begins:
                once = {"label": "next phase"} if n == begins[0] else {}
                axes.axvline(n + 0.5, color="#8a8f98", linestyle=":", **once)
            if training.get("switched_at") is not None:
                axes.axvline(
                    training["switched_at"] + 0.5, color="#c2410c", linestyle="--", label="switch"
                )
            if training.get("best_epoch") is not None and f"val_{name}" in history:
                best = training["best_epoch"]
                axes.plot(
                    [best + 1], [history[f"val_{name}"][best]], "o", color="#15803d", label="kept"
                )
            axes.set(xlabel="epoch", ylabel=name)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.spines[["top", "right"]].set_visible(False)
            # Where a curve that goes well is not; "best" takes long enough to warn.
            axes.legend(frameon=False, loc="upper right" if name == "loss" else "lower right")
        return _svg(figure)


def confusion_matrix(counts: list[list[int]], classes: list[str]) -> str:
    """True classes down, answers across: counts, shaded by the share of the true class.

    Args:
        counts: (classes, classes), true class by answer.
        classes: the names.
    """
    side = min(10.0, 1.8 + 0.5 * len(classes))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.subplots()
        shares = [[count / max(1, sum(row)) for count in row] for row in counts]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i, row in enumerate(counts):
            for j, count in enumerate(row):
                if count:
                    color = "white" if shares[i][j] > 0.55 else "black"
                    axes.text(j, i, str(count), ha="center", va="center", color=color)
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="answer", ylabel="true class")
        return _svg(figure)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    # Inside a page, what stands before the element (the XML declaration) has no place.
    return text.getvalue()[text.getvalue().index("<svg") :]
