"""The report's pictures, as SVG text to stand inside the page."""

from __future__ import annotations

from typing import Any

from kpipe.report.chart_style import BLUE, GREEN, GREY, RED, as_svg, new_figure

__all__ = ["confusion_matrix", "learning_curves"]


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
    with new_figure(9, 2.6) as figure:
        drawn: dict[str, Any] = {}
        for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            for key, label, color in (
                (name, "train", GREY),
                (f"val_{name}", "validation", BLUE),
            ):
                if key in history:
                    axes.plot(epochs, history[key], label=label, color=color, marker=".")
            # Epochs count from 1 here: a line stands between the two that it divides.
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
    """True classes down, answers across: counts, shaded by the share of the true class.

    Args:
        counts: (classes, classes), true class by answer.
        classes: the names.
    """
    side = min(10.0, 1.8 + 0.5 * len(classes))
    with new_figure(side + 1, side) as figure:
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
        return as_svg(figure)
