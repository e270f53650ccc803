"""The finished rounds of a pruning loop, in a folder.

    folder/round-01.keras    the model after round 1, not compiled
    folder/history.json      request   what the loop was asked for, and of which model
                             sha256    one per round, of its file
                             rounds    one row per round, `Round`

Each file is written aside and renamed, the model before the row that names it, so that a loop
killed anywhere leaves rounds that are whole.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras

from kpipe.atomic import replacing, write_text
from kpipe.errors import PruneError
from kpipe.ownership import refuse_other
from kpipe.prune.graph.tracing import read
from kpipe.prune.surgery.planning import copied

__all__ = ["Round", "RoundStore"]


@dataclass(frozen=True)
class Round:
    """A row of the history.

    Args:
        round: 0 for the model as it was.
        macs: multiply-accumulates after the removal.
        share: `macs` as a share of the model's own.
        params: parameters after the removal.
        before: what `evaluate` said after the removal, before retraining.
        after: what `evaluate` said after retraining.
        filters: name of a group of filters -> how many are left.
        latency_ms: what `latency` said after retraining; None where it is not asked for.
    """

    round: int
    macs: int
    share: float
    params: int
    before: float
    after: float
    filters: dict[str, int] = field(default_factory=dict)
    latency_ms: float | None = None


class RoundStore:
    """The finished rounds of one loop in a folder."""

    def __init__(self, folder: Path, request: dict[str, Any], original: keras.Model) -> None:
        self.folder = folder
        self.request = request
        self.original = original
        folder.mkdir(parents=True, exist_ok=True)

    def history(self) -> list[Round]:
        """The finished rounds whose model can still be read."""
        path = self.folder / "history.json"
        if not path.exists():
            return []
        try:
            stored = json.loads(path.read_text())
            rows = [Round(**row) for row in stored["rounds"]]
            request, digests = dict(stored["request"]), stored["sha256"]
        except (ValueError, TypeError, KeyError):
            warnings.warn(f"{path} cannot be read: the loop starts again", stacklevel=3)
            return []
        refuse_other(self.folder, request, self.request, "another loop", error=PruneError)
        while len(rows) > 1 and self._digest(len(rows) - 1) != digests[len(rows) - 1]:
            warnings.warn(
                f"{self._path(len(rows) - 1)} is missing or not as it was stored: "
                "the round is made again",
                stacklevel=3,
            )
            rows.pop()
        return rows

    def keep(self, rows: list[Round], model: keras.Model | None) -> list[Round]:
        """Stores the rounds so far, the last of them with its model; returns them."""
        if model is not None:
            # A copy, because an optimizer and its losses do not belong in the file.
            with replacing(self._path(len(rows) - 1)) as temporary:
                copied(model).save(temporary)
        digests = [self._digest(number) if number else "" for number in range(len(rows))]
        content = {
            "request": self.request,
            "sha256": digests,
            "rounds": [asdict(row) for row in rows],
        }
        write_text(self.folder / "history.json", json.dumps(content, indent=1))
        return rows

    def model(self, number: int) -> keras.Model:
        """The model after a round, not compiled; of round 0, a copy of that at first."""
        if number == 0:
            return copied(self.original)
        own = {type(op.source).__name__: type(op.source) for op in read(self.original).operations}
        return keras.models.load_model(self._path(number), custom_objects=own, compile=False)

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number:02d}.keras"

    def _digest(self, number: int) -> str:
        path = self._path(number)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
