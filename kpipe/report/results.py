"""What a stage computed, together with what it measured on the machine.

metrics.json and pruning.json hold what is the same in every run; `measured.json`, beside them:

    of Export       {"models": {file: {"median_ms", "p95_ms", ...}}}
    of FilterPrune  {"latency_ms": [of each round]}

Older results hold all of it in the first file, and lack the photos lost and won: those are None.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kpipe.core.store import MEASURED

__all__ = ["read_json", "read_metrics", "read_pruning"]


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """Return the `metrics.json` of a run's folder with the measured figures of each model."""
    metrics: dict[str, Any] | None = read_json(folder / "metrics.json", None)
    if metrics:
        measured = read_json(folder / MEASURED, {}).get("models", {})
        metrics["models"] = [
            {"lost": None, "won": None, **row, **measured.get(row["file"], {})}
            for row in metrics["models"]
        ]
    return metrics


def read_pruning(folder: Path) -> dict[str, Any] | None:
    """Return the `pruning.json` of a stage's folder with the latency of each round."""
    pruning: dict[str, Any] | None = read_json(folder / "pruning.json", None)
    if pruning:
        measured = read_json(folder / MEASURED, {}).get("latency_ms", [])
        for row, latency_ms in zip(pruning["rounds"], measured, strict=False):
            row["latency_ms"] = latency_ms
    return pruning


def read_json(path: Path, default: Any) -> Any:
    """Return the content of a JSON file, or a default if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default
