"""A sensitivity scan kept in a file, so that an interrupted run does not repeat it.

file := {"of": what was scanned, "whole": accuracy, "scores": {group: {fraction: accuracy}}}
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from kpipe.atomic import write_text

if TYPE_CHECKING:
    from kpipe.prune import Sensitivity

__all__ = ["read_scan", "write_scan"]


def read_scan(path: Path, of: str) -> Sensitivity | None:
    """Return the scan in a file, or None: none there, a damaged one, or one of something else.

    Args:
        path: of the file.
        of: identifies what is scanned, and how.
    """
    from kpipe.prune import Sensitivity

    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["of"] != of:
            return None
        scores = {
            str(name): {float(fraction): float(score) for fraction, score in row.items()}
            for name, row in about["scores"].items()
        }
        return Sensitivity(float(about["whole"]), scores)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_scan(path: Path, of: str, scan: Sensitivity) -> None:
    """Write a scan to a file, and make its folder."""
    write_text(path, json.dumps({"of": of, **dataclasses.asdict(scan)}))
