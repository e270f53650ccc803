"""The report of a run: one self-contained HTML file."""

from __future__ import annotations

import base64
from pathlib import Path

from kpipe.report.charts import confusion_matrix, learning_curves
from kpipe.report.collection import collect_run
from kpipe.report.confusions import summarize_confusion
from kpipe.report.pruning_charts import filters_left, pruning_rounds, sensitivity_map
from kpipe.report.templates import write_page
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["write_report"]

# Of more classes, tables name the worst; the numbers in a matrix would be too small to read.
_MATRIX = 40


@names_wrong_kinds
def write_report(folder: str | Path, page: str | Path | None = None) -> Path:
    """Write the HTML report of a run.

    Args:
        folder: the run's folder, `saved_models/<pipeline>/<run>`.
        page: the file to write; `report.html` in that folder by default.

    Returns:
        The path of the page.

    Raises:
        StoreError: the folder holds no run.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.core.journal import Journal
        >>> from kpipe.report import write_report
        >>> Path("run").mkdir()
        >>> Journal(Path("run/journal.jsonl")).record("run_started")
        >>> write_report("run").as_posix()
        'run/report.html'
    """
    folder = Path(folder)
    facts = collect_run(folder)
    for training in facts["trainings"]:
        one_epoch = len(next(iter(training["history"].values()))) == 1
        training["svg"] = "" if one_epoch else learning_curves(training)
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
        counts, classes = final["confusion"], metrics["classes"]
        many = len(classes) > _MATRIX
        final["svg"] = "" if many else confusion_matrix(counts, classes)
        final["errors"] = summarize_confusion(counts, classes) if many else None
    page = Path(page or folder / "report.html")
    write_page(page, "run.html", **facts, final=final)
    return page
