"""What a path that is no pipeline file probably is, and the command that takes it."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from kpipe.errors import PipelineError, nearest

__all__ = ["refuse_other_kinds"]

_TABLES = (".csv", ".tsv")
_PHOTOS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_EXAMPLE = "check the path; kpipe init FOLDER writes a pipeline file for a folder of photos"


def refuse_other_kinds(file: Path) -> None:
    """Refuse a path that is no Python file, and name the command that was probably meant.

    Raises:
        PipelineError: the path does not exist, or it is a folder, a model, a table, a photo or a
            journal.
    """
    received, fix = "", ""
    with contextlib.suppress(OSError, ValueError):  # a path that is too long, or holds a NUL
        if file.is_dir():
            received, fix = _folder(file)
        elif file.is_file():
            received, fix = _file(file)
            if not received:
                return
        elif file.parent.is_dir():
            others = [str(other) for other in sorted(file.parent.glob("*.py"))]
            hint = nearest(str(file), others) if others else ""
            received, fix = "nothing at that path", hint if "mean" in hint else _EXAMPLE
    raise PipelineError(
        f"there is no pipeline file {file}",
        expected="a Python file that defines `pipeline`",
        received=received or "nothing at that path",
        fix=fix or _EXAMPLE,
    )


def _folder(folder: Path) -> tuple[str, str]:
    path = shlex.quote(str(folder))
    if (folder / "journal.jsonl").exists():
        again = shlex.quote(str(folder / "pipeline.py"))
        return "the folder of a run", f"kpipe report {path}, or kpipe run {again} to run it again"
    declarations = [other for other in sorted(folder.glob("*.py")) if _declares(other)]
    if declarations:
        commands = [f"kpipe run {shlex.quote(str(other))}" for other in declarations[:3]]
        return "a folder of pipeline files", " or ".join(commands)
    return (
        "a folder",
        f"if it holds photos: kpipe init {path} writes a pipeline file for them, and "
        f"kpipe check {path} audits them",
    )


def _file(file: Path) -> tuple[str, str]:
    """Return what the file is and what to do; ("", "") for a Python file or an unknown kind."""
    suffix, path = file.suffix.lower(), shlex.quote(str(file))
    if suffix == ".tflite":
        return "a model", f"kpipe predict {path} PHOTOS, or kpipe benchmark {path}"
    if suffix in _TABLES:
        return (
            "a table",
            f"kpipe check {path} audits its photos; "
            f'declare it as Data("{file}", image=COLUMN, label=COLUMN) to train on them',
        )
    if suffix in _PHOTOS:
        return "a photo", f"kpipe predict MODEL.tflite {path}"
    if file.name == "journal.jsonl":
        return "a journal", f"kpipe report {shlex.quote(str(file.parent))}"
    return "", ""


def _declares(file: Path) -> bool:
    with contextlib.suppress(OSError):
        return "pipeline = Pipeline(" in file.read_text(encoding="utf-8", errors="replace")
    return False
