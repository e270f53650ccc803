"""Data: labelled photos, checked, split and decoded once.

data folder := manifest, images.npy, problems; data.json {"image_size", "classes", "background"}
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from kpipe.class_names import unusable_class_names
from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.errors import DataError
from kpipe.printable import quoted
from kpipe.stages.photos.problem_notes import record_problems

if TYPE_CHECKING:
    from kpipe.data import Manifest

__all__ = ["IMAGE_CACHE", "Data"]

# No split may be empty: training needs validation photos, and Export needs test photos.
Fraction = Annotated[float, Between(0, 1, strict=True)]
# SQLite cache of sizes, hashes and thumbnails of photos, in the folder that all runs share.
IMAGE_CACHE = "photos.sqlite"
# Of more classes, a note names the smallest only.
_CLASSES, _SMALLEST = 40, 10


@stage
class Data(Stage):
    """Labelled photos, checked, split and decoded once.

    Args:
        source: a folder `class/photo`, a folder `train|validation|test/class/photo`, or a CSV file;
            or several folders, or several CSV files with the same columns.
        image_size: side in pixels of the square that the network sees.
        split: fractions of train, validation and test; splits that the source declares are kept.
        image: column of a CSV with the path of each photo.
        label: column of a CSV with the label of each photo.
        root: folder of relative paths in a CSV; empty for the folder of the CSV.
        classes: for a CSV, label in the file -> class name; rows with another label are left out
            and reported. Empty: every label is a class.
        csv: for a CSV, options of `pandas.read_csv`, such as `{"sep": ";"}`.
        group: column of a CSV whose groups, such as patients, must not be divided between splits.
        previous: the folder of an earlier run, or its manifest.csv, whose photos keep their split.
        min_photos: fewest photos of each class in each split that kpipe makes; see
            `kpipe.data.split`.
        background: the CSS color shown under transparent pixels.
        max_unreadable: the run fails if more than this fraction of the files is unreadable.

    Example:
        >>> from kpipe.stages import Data
        >>> Data("photos", image_size=160, split=(0.6, 0.2, 0.2)).validation_errors()
        []
        >>> Data("photos", split=(0.7, 0.2, 0.2)).validation_errors()
        ['split=(0.7, 0.2, 0.2): expected fractions that add up to 1']
    """

    gives: ClassVar = ("data",)
    publishes: ClassVar = ("manifest.csv",)
    # 2: the split of a photo depends only on its content.
    # 3: class names of tables that kpipe wrote
    version: ClassVar = 3
    packages: ClassVar = ("imagehash", "pandas", "pillow")

    source: str | tuple[str, ...]
    image_size: Annotated[int, Between(16, 4096)] = 224
    split: tuple[Fraction, Fraction, Fraction] = (0.7, 0.15, 0.15)
    image: str = ""
    label: str = ""
    root: str = ""
    classes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    csv: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    group: str = ""
    previous: str = ""
    min_photos: Annotated[int, Between(1)] = 1
    background: str = "white"
    max_unreadable: Annotated[float, Between(0, 1)] = 0.05

    def __post_init__(self) -> None:
        # Paths are accepted and stored as text.
        for name in ("root", "previous"):
            object.__setattr__(self, name, str(getattr(self, name)))
        several = isinstance(self.source, tuple | list)
        paths = tuple(map(str, self.source)) if several else (str(self.source),)
        object.__setattr__(self, "source", paths[0] if len(paths) == 1 else paths)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the source."""
        return (self.source,) if isinstance(self.source, str) else self.source

    @property
    def is_table(self) -> bool:
        """Whether the source is a CSV rather than a folder."""
        return bool(self.image or self.label)

    def configuration(self) -> dict[str, Any]:
        fields = super().configuration()
        if self.min_photos == 1:
            # Results from before this field keep their keys.
            del fields["min_photos"]
        return fields

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
            problems.append(f"split={self.split!r}: expected fractions that add up to 1")
        if taken := sorted({field.name for field in dataclasses.fields(self)} & self.csv.keys()):
            problems.append(f"csv={self.csv!r}: {', '.join(taken)} are fields of Data itself")
        if names := unusable_class_names(self.classes.values()):
            problems.append(f"classes: {quoted(names)}: expected names of one line, not blank")
        if self.background != type(self).background:
            from kpipe.pixels import background_color

            try:
                background_color(self.background)
            except DataError as error:
                problems.append(f"background={self.background!r}: {error.expected}; {error.fix}")
        return problems

    def sources(self) -> tuple[Path, ...]:
        named = tuple(map(Path, self.paths))
        if self.previous:
            earlier = Path(self.previous)
            named += (earlier / "manifest.csv" if earlier.is_dir() else earlier,)
        if not self.is_table and all(Path(path).is_dir() for path in self.paths):
            from kpipe.data.reading.folders import listed_classes

            listed_classes(self.paths)
        if not self.is_table or not all(Path(path).is_file() for path in self.paths):
            return named
        from kpipe.data import list_csv_files
        from kpipe.data.manifest import COLUMNS, INFO_COLUMNS

        options = {
            "image": self.image,
            "label": "" if self.classes else self.label,
            "root": self.root or None,
            # `split` can also group by a column that kpipe adds to the table.
            "further_columns": [self.label, *({self.group} - {*COLUMNS, *INFO_COLUMNS})],
            **self.csv,
        }
        return (*named, *(path for path in list_csv_files(self.paths, **options) if path.is_file()))

    def check_surroundings(self, earlier: Sequence[Stage]) -> list[str]:
        if self.previous:
            from kpipe.data.splits.splitting import earlier_splits

            earlier_splits(self.previous)
        return []

    def most_classes(self) -> int | None:
        """Return the largest number of classes there can be; None if only labels tell."""
        if self.is_table:
            return len(set(self.classes.values())) or None
        from kpipe.data.reading.folders import listed_classes

        return len(listed_classes(self.paths))

    def manifest(
        self,
        *,
        max_unreadable: float | None,
        cache: Path | None,
        progress: Callable[[int, int], None] | None,
        known_digests: Callable[[Sequence[str]], Mapping[str, str]] | None = None,
    ) -> Manifest:
        """Return the photos of the source, neither split nor decoded.

        Args:
            max_unreadable: as the field; None accepts everything, for an audit.
            cache: an SQLite file in which to cache what photos hold.
            progress: called as `progress(done, total)`.
            known_digests: see `kpipe.data.from_folder`.
        """
        from kpipe.data import from_csv, from_folder

        options: dict[str, Any] = {
            "max_unreadable": max_unreadable,
            "cache": cache,
            "progress": progress,
            "known_digests": known_digests,
        }
        if not self.is_table:
            return from_folder(self.paths, **options)
        return from_csv(
            self.paths,
            image=self.image,
            label=self.label,
            root=self.root or None,
            classes=dict(self.classes) or None,
            **options,
            **self.csv,
        )

    def run(self, context: Context) -> None:
        import pandas as pd

        from kpipe.data import audit, conversion_notes, decode, problem_table, split

        def progress(what: str) -> Callable[[int, int], None]:
            def report(done: int, total: int) -> None:
                context.journal.progress("step", what=what, done=done, total=total)

            return report

        cache = context.shared / IMAGE_CACHE if context.shared else None
        manifest = self.manifest(
            max_unreadable=self.max_unreadable,
            cache=cache,
            progress=progress("reading photos"),
            known_digests=context.known_digests,
        )
        found = audit(manifest, cache=cache, progress=progress("looking at photos")).problems
        # Left out here: `split` reports these photos when it sets them aside.
        found = found[found["kind"] != "duplicates cross splits"]
        problems = [found, problem_table(conversion_notes(manifest, self.background))]
        manifest = split(
            dataclasses.replace(manifest, problems=pd.concat(problems, ignore_index=True)),
            self.split,
            context.seed,
            group=self.group or None,
            previous=self.previous or None,
            min_photos=self.min_photos,
        )
        manifest.save(context.folder)
        decode(
            manifest,
            self.image_size,
            context.folder,
            progress=progress("decoding photos"),
            background=self.background,
        )
        _record(manifest, context)
        about = {
            "image_size": self.image_size,
            "classes": list(manifest.classes),
            "background": self.background,
        }
        (context.folder / "data.json").write_text(json.dumps(about), encoding="utf-8")


def _record(manifest: Manifest, context: Context) -> None:
    counts, total = manifest.counts(), ""
    if len(counts) > _CLASSES:
        total = f"{_slashed(counts.sum())} of {len(counts)} classes, the smallest: "
        counts = counts.loc[counts.sum(axis=1).sort_values(kind="stable").index[:_SMALLEST]]
    rows = total + ", ".join(f"{label} {_slashed(row)}" for label, *row in counts.itertuples())
    context.journal.record(
        "note", text=f"{len(manifest.table)} photos; train/validation/test: {rows}"
    )
    record_problems(manifest.problems, context.journal)


def _slashed(counts: Iterable[int]) -> str:
    return "/".join(map(str, counts))
