"""What a folder of photos holds, as far as it decides how to train on them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kpipe.data import Manifest

__all__ = ["PhotoFacts", "look"]

# Modes of Pillow with one channel of brightness.
_GREY = ("1", "L", "LA", "I", "I;16", "F")


@dataclass(frozen=True)
class PhotoFacts:
    """Facts about labelled photos.

    Attributes:
        counts: class -> number of photos.
        width: median of the widths, pixels.
        height: median of the heights, pixels.
        grey: whether all photos are stored with one channel.
        split: whether the source declares splits.

    Example:
        >>> from kpipe.starter import PhotoFacts
        >>> counts = {"cat": 30, "dog": 10}
        >>> facts = PhotoFacts(counts, width=640, height=480, grey=False, split=False)
        >>> facts.photos, facts.smallest, facts.imbalance
        (40, ('dog', 10), 3.0)
    """

    counts: Mapping[str, int]
    width: int
    height: int
    grey: bool
    split: bool

    @property
    def photos(self) -> int:
        """The number of photos."""
        return sum(self.counts.values())

    @property
    def smallest(self) -> tuple[str, int]:
        """The class with the fewest photos, and how many."""
        return min(self.counts.items(), key=lambda item: item[1])

    @property
    def imbalance(self) -> float:
        """Photos of the largest class for each photo of the smallest."""
        return max(self.counts.values()) / max(1, self.smallest[1])

    @property
    def are_symbols(self) -> bool:
        """Whether classes are named after single letters and digits, or after left and right."""
        names = [name.casefold() for name in self.counts]
        return all(len(name) == 1 or name.isdigit() for name in names) or any(
            word in ("left", "right") for name in names for word in re.split(r"[\W_]+", name)
        )

    def __str__(self) -> str:
        least, most = self.smallest[1], max(self.counts.values())
        each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        color = "grey" if self.grey else "color"
        return (
            f"{self.photos:,} photos of {len(self.counts):,} classes, {each} in each; "
            f"{color}, {self.width:,} x {self.height:,} pixels (median)"
        )


def look(manifest: Manifest) -> PhotoFacts:
    """Return the facts about the photos of a manifest.

    Example:
        >>> from kpipe.data import from_folder
        >>> from kpipe.starter import look
        >>> print(look(from_folder("photos")))
        60 photos of 3 classes, 16 to 24 in each; color, 48 x 40 pixels (median)
    """
    table = manifest.table
    counts = table["label"].value_counts()
    return PhotoFacts(
        counts={name: int(counts.get(name, 0)) for name in manifest.classes},
        width=int(table["width"].median()),
        height=int(table["height"].median()),
        grey=bool("mode" in table and table["mode"].isin(_GREY).all()),
        split=bool((table["split"] != "").any()),
    )
