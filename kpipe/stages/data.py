"""Data: labelled photos, split and decoded once.

data folder := manifest, images.npy, problems; data.json {"image_size", "classes"}
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage

if TYPE_CHECKING:
    from kpipe.data import Manifest

__all__ = ["Data"]

# No split may be empty: training looks at the second, the proof of the exported files at the third.
Part = Annotated[float, Between(0, 1, strict=True)]


@stage
class Data(Stage):
    """Labelled photos, split and decoded once.

    Args:
        source: a folder `class/photo`, a folder `train|validation|test/class/photo`, or a CSV file.
        image_size: pixels of the square that the network sees.
        split: shares of train, validation and test; splits that the source declares are kept.
        image: of a CSV, the column with the path of a photo.
        label: of a CSV, the column with its label.
        root: of a CSV, the folder that its paths start from; empty for the CSV's own.
        classes: of a CSV, label as it stands in the file -> name of the class; rows with another
            label are left out, and told. Empty: every label is a class.
        csv: of a CSV, options of `pandas.read_csv`, such as `{"sep": ";"}`.
        max_unreadable: the share of files above which unreadable ones end the run.
    """

    gives: ClassVar = ("data",)
    distributions: ClassVar = ("pandas", "pillow")

    source: str
    image_size: Annotated[int, Between(16, 4096)] = 224
    split: tuple[Part, Part, Part] = (0.7, 0.15, 0.15)
    image: str = ""
    label: str = ""
    root: str = ""
    classes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    csv: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    max_unreadable: Annotated[float, Between(0, 1)] = 0.05

    def __post_init__(self) -> None:
        # A path is welcome; the declaration keeps its text.
        for name in ("source", "root"):
            object.__setattr__(self, name, str(getattr(self, name)))

    @property
    def is_table(self) -> bool:
        """Whether the source is a CSV rather than a folder."""
        return bool(self.image or self.label)

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.is_table and not (self.image and self.label):
            problems.append("image and label: a CSV needs both columns named")
        if not problems and abs(sum(self.split) - 1) > 1e-6:
            problems.append(f"split={self.split!r}: expected shares that add up to 1")
        if not problems and (taken := sorted(self.configuration().keys() & self.csv.keys())):
            problems.append(f"csv={self.csv!r}: {', '.join(taken)} are fields of Data itself")
        return problems

    def sources(self) -> tuple[Path, ...]:
        source = Path(self.source)
        if not self.is_table or not source.is_file():
            return (source,)
        from kpipe.data import photos_of_csv

        listed = photos_of_csv(source, image=self.image, root=self.root or None, **self.csv)
        return (source, *(path for path in listed if path.is_file()))

    def run(self, context: Context) -> None:
        from kpipe.data import decode, from_csv, from_folder, split

        def reading(done: int, total: int) -> None:
            context.journal.progress("step", what="reading photos", done=done, total=total)

        def decoding(done: int, total: int) -> None:
            context.journal.progress("step", what="decoding photos", done=done, total=total)

        limits: dict[str, Any] = {"max_unreadable": self.max_unreadable, "progress": reading}
        if self.is_table:
            manifest = from_csv(
                self.source,
                image=self.image,
                label=self.label,
                root=self.root or None,
                classes=dict(self.classes) or None,
                **limits,
                **self.csv,
            )
        else:
            manifest = from_folder(self.source, **limits)
        manifest = split(manifest, self.split, context.seed)
        manifest.save(context.folder)
        decode(manifest, self.image_size, context.folder, progress=decoding)
        _tell(manifest, context)
        about = {"image_size": self.image_size, "classes": list(manifest.classes)}
        (context.folder / "data.json").write_text(json.dumps(about), encoding="utf-8")


def _tell(manifest: Manifest, context: Context) -> None:
    counts = manifest.counts()
    rows = ", ".join(
        f"{label} {'/'.join(str(int(n)) for n in counts.loc[label])}" for label in manifest.classes
    )
    context.journal.record(
        "note", text=f"{len(manifest.table)} photos; train/validation/test: {rows}"
    )
    for kind, found in manifest.problems.groupby("kind", sort=True):
        named = [f"{row.path} ({row.detail})" for row in found.itertuples()]
        # All of them stand in the report; a label that was left out on purpose needs no list here.
        shown = named[:1] if kind == "label not declared" else named[:20]
        more = f", and {len(named) - len(shown)} more" if len(named) > len(shown) else ""
        context.journal.record("note", text=f"{len(named)} x {kind}: {', '.join(shown)}{more}")
