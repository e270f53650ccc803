"""Charts of a pruning loop, as SVG text.

rounds       accuracy against multiply-accumulates and against latency
filters      the number of filters in each group, before and after
sensitivity  accuracy against the removed fraction, group by group
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from kpipe.report.chart_style import BLUE, GREY, RED, as_svg, new_figure

__all__ = ["filters_left", "pruning_rounds", "sensitivity_map"]

_LINE = 0.16  # height of a row of text in inches


def pruning_rounds(pruning: dict[str, Any]) -> str:
    """Plot the validation accuracy of each round, before and after retraining.

    Args:
        pruning: `rounds`, rows of `kpipe.prune.Round`; `latency_of`, the kind of file timed.
    """
    rounds = pruning["rounds"]
    with new_figure(8, 2.8) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        _rounds(left, rounds, [row["macs"] / 1e6 for row in rounds])
        left.set(xlabel="million multiply-accumulates", ylabel="validation accuracy")
        left.legend(frameon=False, loc="lower right")
        _rounds(right, rounds, [row["latency_ms"] for row in rounds])
        right.set(xlabel=f"median ms per photo by LiteRT, {pruning['latency_of']}, 1 thread")
        return as_svg(figure)


def _rounds(axes: Axes, rounds: list[dict[str, Any]], costs: list[float]) -> None:
    axes.plot(costs, [row["after"] for row in rounds], "o-", color=BLUE, label="retrained")
    axes.plot(
        costs[1:],
        [row["before"] for row in rounds[1:]],
        "o",
        color=GREY,
        markerfacecolor="none",
        label="before retraining",
    )
    for row, cost in zip(rounds, costs, strict=True):
        axes.annotate(
            str(row["round"]), (cost, row["after"]), xytext=(0, 5), textcoords="offset points"
        )
    axes.spines[["top", "right"]].set_visible(False)


def filters_left(pruning: dict[str, Any]) -> str:
    """Plot a bar per group of filters, from the input down: the filters before and after.

    Args:
        pruning: `rounds`, whose first and last rows hold `filters`, name -> count.
    """
    before, after = (pruning["rounds"][place]["filters"] for place in (0, -1))
    names, places = list(before), range(len(before))
    with new_figure(8, 1.0 + _LINE * len(names)) as figure:
        axes = figure.subplots()
        axes.barh(places, list(before.values()), color="#dfe3e8", label="removed")
        axes.barh(places, [after.get(name, 0) for name in names], color=BLUE, label="left")
        for place, name in zip(places, names, strict=True):
            count = f" {after.get(name, 0)} of {before[name]}"
            axes.text(before[name], place, count, va="center", fontsize=7)
        axes.set_yticks(places, names, fontsize=7)
        axes.set(xlabel="filters", ylim=(len(names) - 0.5, -0.5))
        axes.margins(x=0.12)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        return as_svg(figure)


def sensitivity_map(scan: dict[str, Any]) -> str:
    """Plot accuracy without retraining by group and removed fraction, marking the maxima.

    Args:
        scan: `whole`, the accuracy of the unpruned model; `scores`, group -> {fraction: accuracy};
            `max_pruning_ratio`, group -> the largest fraction that may be removed.
    """
    names = list(scan["scores"])
    fractions = list(next(iter(scan["scores"].values())))
    cells = [[row[fraction] for fraction in fractions] for row in scan["scores"].values()]
    with new_figure(3.5 + 0.8 * len(fractions), 1.2 + _LINE * len(names)) as figure:
        axes = figure.subplots()
        image = axes.imshow(cells, aspect="auto", cmap="viridis", vmin=0, vmax=scan["whole"])
        for place, name in enumerate(names):
            for column, fraction in enumerate(fractions):
                value = cells[place][column]
                color = "black" if value > 0.6 * scan["whole"] else "white"
                axes.text(
                    column, place, f"{value:.0%}", ha="center", va="center", fontsize=7, color=color
                )
                if float(fraction) == scan["max_pruning_ratio"][name]:
                    axes.plot(
                        [column + 0.5] * 2, [place - 0.5, place + 0.5], color=RED, linewidth=3
                    )
        axes.set_xticks(range(len(fractions)), [f"{float(part):.0%}" for part in fractions])
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set(xlabel="fraction of the group's filters removed")
        figure.colorbar(image, label="validation accuracy")
        return as_svg(figure)
