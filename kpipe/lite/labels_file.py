"""`labels.txt`: one name a line, in the order of the outputs; beside a file, and inside it."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from kpipe.errors import ExportError

__all__ = ["LABELS", "check_labels", "labels_text", "read_labels"]

LABELS = "labels.txt"


def check_labels(labels: Sequence[str], classes: int, name: str) -> None:
    """Refuses labels that are not one different, single-line name for each output.

    Args:
        labels: in the order of the outputs.
        classes: how many outputs there are.
        name: of the model, for the error.

    Raises:
        ExportError: they are not; everything that is wrong with them is named.
    """
    wrong = [repr(label) for label in labels if not isinstance(label, str)]
    if wrong:
        raise ExportError(
            f"the labels of {name} are not all text: {', '.join(wrong[:10])}",
            expected=f"{classes} different names of one line, one for each output",
            fix="labels=[str(label) for label in labels]",
        )
    empty = [str(position) for position, label in enumerate(labels) if not label.strip()]
    broken = [label for label in labels if label.strip() and label.splitlines() != [label]]
    repeated = sorted({label for label in labels if labels.count(label) > 1 and label.strip()})
    problems = [
        *([f"lines {', '.join(empty)} (from 0) are empty"] if empty else []),
        *([f"{', '.join(map(repr, broken))} of more than one line"] if broken else []),
        *([f"{', '.join(map(repr, repeated))} more than once"] if repeated else []),
    ]
    if problems or len(labels) != classes:
        raise ExportError(
            f"the labels do not match {name}",
            expected=f"{classes} different names of one line, one for each output",
            received="; ".join([f"{len(labels)} labels", *problems]),
            fix="use the labels.txt that was written with the file",
        )


def labels_text(labels: Sequence[str]) -> str:
    """The content of `labels.txt`."""
    return "".join(f"{label}\n" for label in labels)


def read_labels(path: Path) -> list[str]:
    """The labels beside a `.tflite` file; where there are none, those inside it.

    Raises:
        ExportError: neither can be read.
    """
    beside = path.with_name(LABELS)
    try:
        if not beside.exists() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return archive.read(LABELS).decode("utf-8-sig").splitlines()
        return beside.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, KeyError, UnicodeDecodeError, zipfile.BadZipFile, zlib.error) as error:
        raise ExportError(
            f"cannot read the labels of {path}: {error}",
            expected=f"{beside}, one name a line, or labels inside the file",
            fix="write that file, or pass labels=[...]",
        ) from error
