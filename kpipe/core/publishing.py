"""Copy files from the results of stages into the folder of a run.

<run>/           the published files of a run whose results are all accepted
<run>/refused/   the same files of a run whose last result was refused, see `Stage.judge`
"""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Sequence
from pathlib import Path

from kpipe.atomic import replacing
from kpipe.core.journal import Journal
from kpipe.core.stage import Stage
from kpipe.core.store import Entry, remove
from kpipe.errors import KpipeError

__all__ = ["REFUSED", "Result", "judge", "publish"]

REFUSED = "refused"

Result = tuple[Stage, Entry]


def judge(results: Sequence[Result], folder: Path, journal: Journal) -> None:
    """Judge the last result; if it is refused, keep the published files aside and raise.

    Args:
        results: each stage so far with its result.
        folder: the run's folder.
        journal: the journal of the last stage.

    Raises:
        KpipeError: the result is refused; the error names the folder of the files.
    """
    stage, entry = results[-1]
    try:
        for note in stage.judge(entry.folder):
            journal.record("note", text=note, verdict=True)
    except KpipeError as error:
        refused = folder / REFUSED
        _remove(refused)
        _copy(results, refused)
        error.fix = f"see the files in {refused}; {error.fix}"
        journal.record("stage_refused", error=type(error).__name__, detail=str(error))
        raise


def publish(results: Sequence[Result], folder: Path) -> None:
    """Copy published files into the run's folder; for equal names, that of the newest stage."""
    _copy(results, folder)
    _remove(folder / REFUSED)


def _copy(results: Sequence[Result], folder: Path) -> None:
    newest = {
        source.name: source
        for stage, entry in results
        for pattern in stage.publishes
        for source in entry.folder.glob(pattern)
    }
    for name, source in newest.items():
        target = folder / name
        if not (target.exists() and filecmp.cmp(source, target)):
            with replacing(target) as temporary:
                shutil.copy2(source, temporary)


def _remove(refused: Path) -> None:
    if refused.exists():
        remove(refused)
