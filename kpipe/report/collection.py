"""Collect the facts of a run from its journal and the artifacts named there.

    {"pipeline", "run", "declaration",
     "stages": [{"name", "status", "seconds", "notes", "verdicts"}],
     "trainings": [{"stage", "title", "history", "switched_at", "best_epoch"}],
     "prunings": [{"stage", "target", "latency_of", "stopped", "rounds", "sensitivity"}],
     "ensembles": [{"stage", "combine", "chosen", "photos", "members", "combinations",
                    "disagreement", "oracle"}],
     "problems": [{"path", "kind", "detail"}], "contact_sheet": a path or None,
     "metrics": {...} or None, "missing": [...]}

The verdicts of a stage say why its newest result was refused, or accepted with doubts. The metrics
of a refused run are those of its refused files.

"missing" lists removed artifacts and the number of journal lines that are not events, so an old run
still has a report.
"""

from __future__ import annotations

import csv
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from kpipe.core.journal import Event, parse_journal
from kpipe.core.publishing import REFUSED
from kpipe.errors import StoreError
from kpipe.printable import cell_text
from kpipe.report.results import read_json, read_metrics, read_pruning
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["collect_run"]


@names_wrong_kinds
def collect_run(folder: Path) -> dict[str, Any]:
    """Return everything that the report of a run shows.

    Args:
        folder: the run's folder, `saved_models/<pipeline>/<run>`.

    Raises:
        StoreError: the folder holds no run.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.core.journal import Journal
        >>> from kpipe.report import collect_run
        >>> journal = Journal(Path("journal.jsonl")).for_stage("Data")
        >>> journal.record("stage_started", continues=False)
        >>> journal.record("note", text="60 photos")
        >>> [(stage["name"], stage["notes"]) for stage in collect_run(Path("."))["stages"]]
        [('Data', ['60 photos'])]
    """
    journal = folder / "journal.jsonl"
    if not os.path.exists(journal):  # also of a path that is too long
        raise StoreError(
            f"{folder} holds no run",
            expected=f"a journal at {journal}",
            fix="run the pipeline first: kpipe run FILE",
        )
    events, skipped = parse_journal(journal)
    stages = _stages(events)
    trainings: list[dict[str, Any]] = []
    prunings: list[dict[str, Any]] = []
    ensembles: list[dict[str, Any]] = []
    problems: list[dict[str, str]] = []
    missing: list[str] = []
    if skipped:
        missing.append(f"{journal.name}: {skipped} lines are not events and are skipped")
    contact_sheet: Path | None = None
    for stage in stages:
        if not stage["folder"]:
            continue
        artifact = folder / stage["folder"]
        if not artifact.exists():
            missing.append(f"{stage['name']}: {artifact} was removed")
            continue
        trainings += [
            {"stage": stage["name"], **training}
            for training in read_json(artifact / "history.json", [])
        ]
        if pruning := read_pruning(artifact):
            prunings.append({"stage": stage["name"], **pruning})
        if ensemble := read_json(artifact / "ensemble.json", None):
            ensembles.append({"stage": stage["name"], **ensemble})
        if (artifact / "problems.csv").exists():
            with (artifact / "problems.csv").open(encoding="utf-8", newline="") as stream:
                problems += [
                    {name: cell_text(str(text)) for name, text in row.items()}
                    for row in csv.DictReader(stream)
                ]
        if (artifact / "contact_sheet.jpg").exists():
            contact_sheet = artifact / "contact_sheet.jpg"
    declaration = folder / "pipeline.py"
    refused = any(stage["status"] == "refused" for stage in stages)
    return {
        "pipeline": folder.parent.name,
        "run": folder.name,
        "declaration": declaration.read_text("utf-8", "replace") if declaration.exists() else "",
        "stages": stages,
        "trainings": trainings,
        "prunings": prunings,
        "ensembles": ensembles,
        "problems": problems,
        "contact_sheet": contact_sheet,
        "metrics": read_metrics(folder / REFUSED if refused else folder),
        "missing": missing,
    }


def _stages(events: list[Event]) -> list[dict[str, Any]]:
    """Return a row per stage, in the order of the newest run, with notes and time of its making."""
    rows: dict[str, dict[str, Any]] = {}
    last_event: dict[str, datetime] = {}
    for event in events:
        if event["event"] == "run_started":
            # Keep the notes and times of earlier runs.
            reset = {"status": "not reached", "verdicts": []}
            rows = {name: {**row, **reset} for name, row in rows.items()}
            continue
        name = event.get("stage")
        if not name:
            continue
        blank = {"name": name, "status": "", "seconds": 0.0, "folder": ""}
        row = rows.setdefault(name, {**blank, "notes": [], "verdicts": []})
        kind, now = event["event"], datetime.fromisoformat(event["time"])
        if kind not in ("stage_started", "stage_skipped") and name in last_event:
            # Summed between events: an interrupted attempt counts up to its last event.
            row["seconds"] += (now - last_event[name]).total_seconds()
        last_event[name] = now
        if kind == "stage_started":
            row["status"] = "interrupted"
            if not event["continues"]:
                row.update(seconds=0.0, notes=[])
        elif kind == "note" and event.get("verdict"):
            row["verdicts"].append(event["text"])
        elif kind == "note" and event["text"] not in row["notes"]:
            row["notes"].append(event["text"])
        elif kind == "stage_refused":
            row["status"] = "refused"
            row["verdicts"].append(event["detail"])
        elif kind == "stage_failed":
            row["status"] = "failed"
            row["notes"].append(event["detail"])
        elif kind in ("stage_finished", "stage_skipped"):
            row["folder"] = event["folder"]
            row["status"] = "cached" if kind == "stage_skipped" else "finished"
    return list(rows.values())
