"""What a user should know before a run: classes with too few photos, files that are no photos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kpipe.starter.facts import PhotoFacts

if TYPE_CHECKING:
    from kpipe.data import Manifest

__all__ = ["cautions"]

# What a class needs so that it can be split, learned, and measured.
_LEAST, _TOO_FEW, _ENOUGH = 3, 10, 50
_SPLITS = {"train", "val", "validation", "test"}
_UNREADABLE = 0.05  # `Data.max_unreadable`


def cautions(manifest: Manifest, facts: PhotoFacts, folder: Path) -> list[str]:
    """Return a sentence for each thing that a run would refuse or that would mislead.

    Args:
        manifest: of all photos, read with `max_unreadable=None`.
        facts: about them.
        folder: which was read.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.data import from_folder
        >>> from kpipe.starter import look
        >>> from kpipe.starter.cautions import cautions
        >>> manifest = from_folder("photos")
        >>> cautions(manifest, look(manifest), Path("photos"))
        ['fewer than 50 photos of blue, green, red: their test figures rest on a few photos']
    """
    return [*_files_that_are_no_photos(manifest, folder), *_small_classes(facts)]


def _files_that_are_no_photos(manifest: Manifest, folder: Path) -> list[str]:
    # A class folder without photos is among the problems, too.
    bad = sum(Path(path).is_file() for path in manifest.problems["path"])
    good = len(manifest.table)
    if not bad:
        return []
    too_many = bad > _UNREADABLE * (bad + good)
    then = "a run refuses so many" if too_many else "a run leaves them out"
    found = [f"{bad:,} of {bad + good:,} files cannot be used, and {then}: kpipe check names them"]
    root, lost = Path(os.path.abspath(folder)), set[str]()
    for path in map(Path, manifest.problems["path"]):
        if path.is_relative_to(root):
            names = [name for name in path.relative_to(root).parts if name not in _SPLITS]
            lost.update(names[:-1][:1])
    if lost := lost - set(manifest.classes):
        found.append(f"no photo of {_listed(sorted(lost))} can be used: a run would not know it")
    return found


def _small_classes(facts: PhotoFacts) -> list[str]:
    def between(low: int, high: int) -> list[str]:
        return [name for name, count in facts.counts.items() if low <= count < high]

    found = []
    if (least := between(0, _LEAST)) and not facts.split:
        found.append(
            f"fewer than {_LEAST} photos of {_listed(least)}: a run refuses them, since each split "
            "needs one; add photos, or remove the folder"
        )
    if few := between(_LEAST, _TOO_FEW):
        why = "a network learns them badly, and one or two test photos measure nothing"
        found.append(f"fewer than {_TOO_FEW} photos of {_listed(few)}: {why}")
    if some := between(_TOO_FEW, _ENOUGH):
        why = "their test figures rest on a few photos"
        found.append(f"fewer than {_ENOUGH} photos of {_listed(some)}: {why}")
    return found


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + rest
