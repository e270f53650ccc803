"""Data: labelled photos, looked through, split and decoded once.

data folder := manifest, images.npy, problems; data.json {"image_size", "classes", "background"}
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.errors import DataError

if TYPE_CHECKING:
    from kpipe.data import Manifest

__all__ = ["IMAGE_CACHE", "Data"]

# No split may be empty: training looks at the second, the proof of the exported files at the third.
Part = Annotated[float, Between(0, 1, strict=True)]
# What photos were found to hold, in the folder that all runs share.
IMAGE_CACHE = "photos.sqlite"
_SHOWN = 3


@stage
class Data(Stage):
    """Labelled photos, looked through, split and decoded once.

    Args:
        source: a folder `class/photo`, a folder `train|validation|test/class/photo`, or a CSV file;
            or several folders, or several CSV files with the same columns.
        image_size: pixels of the square that the network sees.
        split: shares of train, validation and test; splits that the source declares are kept.
        image: of a CSV, the column with the path of a photo.
        label: of a CSV, the column with its label.
        root: of a CSV, the folder that its paths start from; empty for the CSV's own.
        classes: of a CSV, label as it stands in the file -> name of the class; rows with another
            label are left out, and told. Empty: every label is a class.
        csv: of a CSV, options of `pandas.read_csv`, such as `{"sep": ";"}`.
        group: of a CSV, the column of what must not be torn between splits, such as a patient.
        previous: the folder of an earlier run, or its manifest.csv: photos that were in it keep
            their split.
        background: the CSS color under transparent pixels.
        max_unreadable: the share of files above which unreadable ones end the run.
    """

    gives: ClassVar = ("data",)
    publishes: ClassVar = ("manifest.csv",)
    # 2: a photo's split is decided by its content alone.
    version: ClassVar = 2
    packages: ClassVar = ("imagehash", "pandas", "pillow")

    source: str | tuple[str, ...]
    image_size: Annotated[int, Between(16, 4096)] = 224
    split: tuple[Part, Part, Part] = (0.7, 0.15, 0.15)
    image: str = ""
    label: str = ""
    root: str = ""
    classes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    csv: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    group: str = ""
    previous: str = ""
    background: str = "white"
    max_unreadable: Annotated[float, Between(0, 1)] = 0.05

    def __post_init__(self) -> None:
        # A path is welcome; the declaration keeps its text.
        for name in ("root", "previous"):
            object.__setattr__(self, name, str(getattr(self, name)))
        several = isinstance(self.source, tuple | list)
        named = tuple(map(str, self.source)) if several else (str(self.source),)
        object.__setattr__(self, "source", named[0] if len(named) == 1 else named)

    @property
    def paths(self) -> tuple[str, ...]:
        """The source, or each of several."""
        return (self.source,) if isinstance(self.source, str) else self.source

    @property
    def is_table(self) -> bool:
        """Whether the source is a CSV rather than a folder."""
        return bool(self.image or self.label)

    def validation_errors(self) -> list[str]:
        problems = super().validation_errors()
        if not self.source:
            problems.append(f"source={self.source!r}: expected the path of a folder or CSV")
        if self.is_table and not (self.image and self.label):
            problems.append("image and label: a CSV needs both columns named")
        if self.group and not self.is_table:
            problems.append(f"group={self.group!r}: photos in folders have no columns: use a CSV")
        if problems:
            return problems
        if abs(sum(self.split) - 1) > 1e-6:
            problems.append(f"split={self.split!r}: expected shares that add up to 1")
        if taken := sorted(self.configuration().keys() & self.csv.keys()):
            problems.append(f"csv={self.csv!r}: {', '.join(taken)} are fields of Data itself")
        if self.background != type(self).background:
            from kpipe.pixels import background_color

            try:
                background_color(self.background)
            except DataError as error:
                problems.append(f"background={self.background!r}: {error.expected}; {error.fix}")
        return problems

    def sources(self) -> tuple[Path, ...]:
        own = tuple(map(Path, self.paths))
        if self.previous:
            earlier = Path(self.previous)
            own += (earlier / "manifest.csv" if earlier.is_dir() else earlier,)
        if not self.is_table or not all(Path(path).is_file() for path in self.paths):
            return own
        from kpipe.data import photos_of_csv

        options = {"image": self.image, "root": self.root or None, **self.csv}
        return (*own, *(path for path in photos_of_csv(self.paths, **options) if path.is_file()))

    def manifest(
        self,
        *,
        max_unreadable: float | None,
        cache: Path | None,
        progress: Callable[[int, int], None] | None,
    ) -> Manifest:
        """The photos, as they lie in the source: neither split nor decoded.

        Args:
            max_unreadable: as the field; None refuses nothing, for an audit.
            cache: an SQLite file in which to remember what photos hold.
            progress: called as `progress(done, total)`.
        """
        from kpipe.data import from_csv, from_folder

        how: dict[str, Any] = {
            "max_unreadable": max_unreadable,
            "cache": cache,
            "progress": progress,
        }
        if not self.is_table:
            return from_folder(self.paths, **how)
        return from_csv(
            self.paths,
            image=self.image,
            label=self.label,
            root=self.root or None,
            classes=dict(self.classes) or None,
            **how,
            **self.csv,
        )

    def run(self, context: Context) -> None:
        import pandas as pd

        from kpipe.data import audit, converted, decode, problem_table, split

        def progress(what: str) -> Callable[[int, int], None]:
            def tell(done: int, total: int) -> None:
                context.journal.progress("step", what=what, done=done, total=total)

            return tell

        cache = context.shared / IMAGE_CACHE if context.shared else None
        manifest = self.manifest(
            max_unreadable=self.max_unreadable,
            cache=cache,
            progress=progress("reading photos"),
        )
        found = audit(manifest, cache=cache, progress=progress("looking at photos")).problems
        # What lies in several splits is told as it is set aside.
        found = found[found["kind"] != "duplicates cross splits"]
        told = [found, problem_table(converted(manifest, self.background))]
        manifest = split(
            dataclasses.replace(manifest, problems=pd.concat(told, ignore_index=True)),
            self.split,
            context.seed,
            group=self.group or None,
            previous=self.previous or None,
        )
        manifest.save(context.folder)
        decode(
            manifest,
            self.image_size,
            context.folder,
            progress=progress("decoding photos"),
            background=self.background,
        )
        _tell(manifest, context)
        about = {
            "image_size": self.image_size,
            "classes": list(manifest.classes),
            "background": self.background,
        }
        (context.folder / "data.json").write_text(json.dumps(about), encoding="utf-8")


def _tell(manifest: Manifest, context: Context) -> None:
    counts = manifest.counts().astype(int)
    rows = ", ".join(
        f"{label} {'/'.join(map(str, counts.loc[label]))}" for label in manifest.classes
    )
    context.journal.record(
        "note", text=f"{len(manifest.table)} photos; train/validation/test: {rows}"
    )
    for kind, found in manifest.problems.groupby("kind", sort=True):
        first = found.head(_SHOWN)
        named = [
            f"{path} ({detail})" if path else detail
            for path, detail in zip(first["path"], first["detail"], strict=True)
        ]
        # All of them stand in the report.
        more = f", and {len(found) - len(named)} more" if len(found) > len(named) else ""
        context.journal.record("note", text=f"{len(found)} x {kind}: {', '.join(named)}{more}")
