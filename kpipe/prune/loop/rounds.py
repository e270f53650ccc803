"""Store the finished rounds of a pruning loop in a folder.

    folder/round-01.keras    the model after round 1, not compiled
    folder/history.json      request   the loop's arguments, and a digest of the model
                             sha256    one per round, of its file
                             rounds    one row per round, `Round`

Each file is written under another name and renamed, the model before the row that refers to it, so
a loop that is killed leaves only complete rounds.
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
from kpipe.live_objects import load_stored
from kpipe.paired_loss import PairedLoss
from kpipe.prune.dependencies.dependency_graph import DependencyGraph
from kpipe.prune.surgery.planning import flat_copy
from kpipe.resume_identity import refuse_other

__all__ = ["Round", "RoundStore"]


@dataclass(frozen=True)
class Round:
    """One row of the history of a pruning loop.

    Args:
        round: 0 for the original model.
        macs: multiply-accumulates after the removal.
        share: `macs` as a fraction of those of the original model.
        params: parameters after the removal.
        before: score after the removal, before retraining.
        after: score after retraining.
        filters: name of a group of filters -> how many are left.
        latency_ms: latency after retraining; None if it is not measured.
        loss: the images lost and won against the original model; None if `evaluate` returns a
            number.

    Example:
        >>> from kpipe.prune import Round
        >>> row = Round(1, macs=150_000, share=0.5, params=900, before=0.71, after=0.88)
        >>> f"{row.share:.0%} of the MACs: {row.before} after removal, {row.after} after retraining"
        '50% of the MACs: 0.71 after removal, 0.88 after retraining'
    """

    round: int
    macs: int
    share: float
    params: int
    before: float
    after: float
    filters: dict[str, int] = field(default_factory=dict)
    latency_ms: float | None = None
    loss: PairedLoss | None = None


class RoundStore:
    """The finished rounds of one loop in a folder.

    Args:
        folder: created if it is missing.
        request: the loop's arguments, see `LoopConfig.identity`.
        original: the dependency graph of the model before the first round.
    """

    def __init__(self, folder: Path, request: dict[str, Any], original: DependencyGraph) -> None:
        self.folder = folder
        self.request = request
        self.original = original
        folder.mkdir(parents=True, exist_ok=True)

    def history(self) -> list[Round]:
        """Return the finished rounds whose model can be read."""
        path = self.folder / "history.json"
        if not path.exists():
            return []
        try:
            stored = json.loads(path.read_text())
            rows = [_round(row) for row in stored["rounds"]]
            request = dict(stored["request"])
            digests = [str(stored["sha256"][number]) for number in range(len(rows))]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            warnings.warn(f"{path} cannot be read: the loop restarts from round 0", stacklevel=3)
            return []
        refuse_other(self.folder, request, self.request, "another loop", error=PruneError)
        while len(rows) > 1 and self._digest(len(rows) - 1) != digests[len(rows) - 1]:
            warnings.warn(
                f"{self._path(len(rows) - 1)} is missing or was changed: the round is repeated",
                stacklevel=3,
            )
            rows.pop()
        return rows

    def save(self, rows: list[Round], trained: DependencyGraph | None) -> list[Round]:
        """Store the rounds so far, the last one with its model; return them."""
        if trained is not None:
            # A copy, so that the file holds no optimizer or losses.
            with replacing(self._path(len(rows) - 1)) as temporary:
                flat_copy(trained.model, trained.graph).save(temporary)
        digests = [self._digest(number) if number else "" for number in range(len(rows))]
        content = {
            "request": self.request,
            "sha256": digests,
            "rounds": [asdict(row) for row in rows],
        }
        write_text(self.folder / "history.json", json.dumps(content, indent=1))
        return rows

    def load_model(self, number: int) -> keras.Model:
        """Return the model after a round, not compiled; for round 0, a copy of the original."""
        graph = self.original.graph
        if number == 0:
            return flat_copy(self.original.model, graph)
        return load_stored(self._path(number), [op.source for op in graph.operations])

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number:02d}.keras"

    def _digest(self, number: int) -> str:
        path = self._path(number)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _round(row: dict[str, Any]) -> Round:
    loss = row.get("loss")
    return Round(**{**row, "loss": None if loss is None else PairedLoss(**loss)})
