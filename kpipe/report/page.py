"""The report of a run: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
from pathlib import Path

from kpipe.report.charts import confusion_matrix, learning_curves
from kpipe.report.collection import collect
from kpipe.report.pruning_charts import filters_left, pruning_rounds, sensitivity_map
from kpipe.report.templates import write_page

__all__ = ["write_report"]


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into a run's folder.

    Args:
        folder: the run's folder, `saved_models/<pipeline>/<run>`.

    Returns:
        The path of the page.

    Raises:
        StoreError: there is no run in the folder.
    """
    folder = Path(folder)
    facts = collect(folder)
    for training in facts["trainings"]:
        once = len(next(iter(training["history"].values()))) == 1
        training["svg"] = "" if once else learning_curves(training)  # a point is no curve
    for pruning in facts["prunings"]:
        pruning["rounds_svg"] = pruning_rounds(pruning)
        pruning["filters_svg"] = filters_left(pruning)
        scan = pruning["sensitivity"]
        pruning["sensitivity_svg"] = sensitivity_map(scan) if scan else ""
    if facts["contact_sheet"]:
        encoded = base64.b64encode(facts["contact_sheet"].read_bytes()).decode()
        facts["contact_sheet"] = f"data:image/jpeg;base64,{encoded}"
    metrics = facts["metrics"]
    final = None
    if metrics:
        final = next(row for row in metrics["models"] if row["file"] == metrics["final"])
        final["svg"] = confusion_matrix(final["confusion"], metrics["classes"])
    page = folder / "report.html"
    write_page(page, "page.html", **facts, final=final)
    return page
