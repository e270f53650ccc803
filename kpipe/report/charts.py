"""Charts of training and evaluation, as SVG text."""

from __future__ import annotations

from typing import Any

from kpipe.printable import printable
from kpipe.report.chart_style import BLUE, GREEN, GREY, RED, as_svg, new_figure

__all__ = ["confusion_matrix", "learning_curves"]

_NAME = 32  # characters of a class name


def learning_curves(training: dict[str, Any]) -> str:
    """Plot loss and accuracy by epoch, marking phases, the optimizer switch and the best epoch.

    Args:
        training: `history` (name -> one value per epoch; "phase" numbers the phases),
            `switched_at`, `best_epoch`.
    """
    history = training["history"]
    phases = history.get("phase", [])
    begins = [n for n in range(1, len(phases)) if phases[n] != phases[n - 1]]
    epochs = range(1, len(next(iter(history.values()))) + 1)
    with new_figure(9, 2.6) as figure:
        drawn: dict[str, Any] = {}
        for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            for key, label, color in (
                (name, "train", GREY),
                (f"val_{name}", "validation", BLUE),
            ):
                if key in history:
                    axes.plot(epochs, history[key], label=label, color=color, marker=".")
            # Epochs are numbered from 1; a line separates two epochs.
            for n in begins:
                once = {"label": "next phase"} if n == begins[0] else {}
                axes.axvline(n + 0.5, color=GREY, linestyle=":", **once)
            if training.get("switched_at") is not None:
                axes.axvline(
                    training["switched_at"] + 0.5, color=RED, linestyle="--", label="switch"
                )
            if training.get("best_epoch") is not None and f"val_{name}" in history:
                best = training["best_epoch"]
                axes.plot(
                    [best + 1], [history[f"val_{name}"][best]], "o", color=GREEN, label="kept"
                )
            axes.set(xlabel="epoch", ylabel=name)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.spines[["top", "right"]].set_visible(False)
            handles, labels = axes.get_legend_handles_labels()
            drawn |= dict(zip(labels, handles, strict=True))
        figure.legend(drawn.values(), drawn, frameon=False, loc="outside right center")
        return as_svg(figure)


def confusion_matrix(counts: list[list[int]], classes: list[str]) -> str:
    """Plot counts of true class (rows) by predicted class, shaded by the fraction of the row.

    Args:
        counts: (classes, classes), true by predicted class.
        classes: the names.
    """
    # Between dollar signs, matplotlib expects a formula.
    names = [printable(name).replace("$", r"\$") for name in classes]
    names = [name if len(name) <= _NAME else f"{name[: _NAME - 1]}…" for name in names]
    side = min(10.0, 1.8 + 0.5 * len(classes))
    with new_figure(side + 1, side) as figure:
        axes = figure.subplots()
        fractions = [[count / max(1, sum(row)) for count in row] for row in counts]
        axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        for i, row in enumerate(counts):
            for j, count in enumerate(row):
                if count:
                    color = "white" if fractions[i][j] > 0.55 else "black"
                    axes.text(j, i, str(count), ha="center", va="center", color=color)
        axes.set_xticks(range(len(classes)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), names)
        axes.set(xlabel="predicted class", ylabel="true class")
        return as_svg(figure)
