"""Judge exported files by the test photos that they lose against their Keras models.

within the tolerance                        -> accepted
beyond it, and chance may explain the loss  -> accepted, with a note
beyond it, and beyond chance                -> refused
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kpipe.errors import ExportError

__all__ = ["judge_losses"]


def judge_losses(rows: Sequence[Mapping[str, Any]], tolerance: float) -> list[str]:
    """Return a note on each file whose loss cannot be told from chance.

    Args:
        rows: the models of `metrics.json`; of each, its file, images, lost and won.
        tolerance: the accuracy that a file may lose, in [0, 1].

    Raises:
        ExportError: a file loses more than the tolerance, beyond chance.
    """
    from kpipe.paired_loss import PairedLoss  # loads NumPy, which a pipeline file need not

    losses = {row["file"]: PairedLoss(row["images"], row["lost"], row["won"]) for row in rows}
    facts = {
        file: f"{file}: {loss.describe('test photos')}, a loss of {loss.loss:.1%}"
        for file, loss in losses.items()
    }
    verdicts = {file: loss.verdict(tolerance) for file, loss in losses.items()}
    lossy = [file for file, verdict in verdicts.items() if verdict == "beyond"]
    if lossy:
        needed = math.ceil(round(100 * max(losses[file].loss for file in lossy), 6)) / 100
        raise ExportError(
            f"the conversion lost too many test photos: {', '.join(lossy)}",
            expected=f"a loss of at most {tolerance:.1%}, or one that chance explains",
            received="; ".join(
                f"{facts[file]} (p = {losses[file].p_value(tolerance):.2g})" for file in lossy
            ),
            fix=f"accept the loss with --set Export.tolerance={needed}; the converted files are "
            "reused. Or export another form with --set Export.quantize=mixed, or put "
            "QuantizeAware() before Export",
        )
    return [
        f"{facts[file]}, above the tolerance of {tolerance:.1%}; {losses[file].photos:,} photos "
        "are too few to tell it from chance, so the file is accepted"
        for file, verdict in verdicts.items()
        if verdict == "undecided"
    ]
