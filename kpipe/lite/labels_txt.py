"""`labels.txt`, beside a `.tflite` file or inside it: one class name a line, in output order."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from kpipe.class_names import unusable_class_names
from kpipe.errors import ExportError
from kpipe.printable import quoted

__all__ = ["LABELS_FILE", "check_labels", "format_labels", "read_labels"]

LABELS_FILE = "labels.txt"
_LARGEST = 10_000_000
_UNREADABLE = (
    *(OSError, KeyError, ValueError, EOFError, RuntimeError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


def check_labels(labels: Sequence[str], classes: int, name: str) -> None:
    """Check that there is one distinct, single-line label for each output.

    Args:
        labels: class names in output order.
        classes: number of outputs.
        name: name of the model, for the error.

    Raises:
        ExportError: the labels do not match; the message lists every problem.
    """
    empty = [str(position) for position, label in enumerate(labels) if not label.strip()]
    broken = [label for label in unusable_class_names(labels) if label.strip()]
    repeated = sorted({label for label in labels if labels.count(label) > 1 and label.strip()})
    problems = [
        *([f"lines {', '.join(empty)} (from 0) are empty"] if empty else []),
        *([f"{quoted(broken)}, which a line cannot hold"] if broken else []),
        *([f"{quoted(repeated)} more than once"] if repeated else []),
    ]
    if problems or len(labels) != classes:
        raise ExportError(
            f"the labels do not match {name}",
            expected=f"{classes} distinct names of one line, one for each output",
            received="; ".join([f"{len(labels)} labels", *problems]),
            fix="use the labels.txt that was written with the file",
        )


def format_labels(labels: Sequence[str]) -> str:
    """Return the content of `labels.txt`."""
    return "".join(f"{label}\n" for label in labels)


def read_labels(path: Path) -> list[str]:
    """Return the labels beside a `.tflite` file or, if there are none, those inside it.

    Raises:
        ExportError: neither can be read.
    """
    beside = path.with_name(LABELS_FILE)
    try:
        if not beside.exists() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = archive.getinfo(LABELS_FILE).file_size
                if size > _LARGEST:
                    raise zipfile.BadZipFile(f"{LABELS_FILE} has {size} bytes")
                return archive.read(LABELS_FILE).decode("utf-8-sig").splitlines()
        return beside.read_text(encoding="utf-8-sig").splitlines()
    except _UNREADABLE as error:
        raise ExportError(
            f"cannot read the labels of {path}: {error}",
            expected=f"{beside} with one name a line, or labels inside the file",
            fix="write that file, or pass labels=[...]",
        ) from error
