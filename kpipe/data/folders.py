"""Files under a folder, each directory entered once.

    root/class/**/photo            no split declared
    root/train|val|test/class/**   splits declared by the folders

Hidden entries, symlink loops and directories that cannot be listed become problems; what
operating systems leave behind (.DS_Store, Thumbs.db, desktop.ini) is no problem at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kpipe.data.scanning import Problem
from kpipe.errors import DataError

__all__ = ["SPLIT_NAMES", "listed_files"]

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


def listed_files(root: Path, problems: list[Problem]) -> Iterator[tuple[str, str, str]]:
    """(path, class, split) of every file in a class folder; an empty folder gives ("", class, "").

    Args:
        root: the folder, existing.
        problems: what is passed over is added to it.

    Raises:
        DataError: the root cannot be listed, or mixes split folders with others.
    """
    try:
        tops = _folders(root, problems, (root.resolve(),))
    except OSError as error:
        raise DataError(f"{root} cannot be listed", received=str(error)) from error
    named = [folder for folder in tops if folder.name.lower() in SPLIT_NAMES]
    nested = [folder for folder in named if _has_folder(folder)]
    if nested and len(named) < len(tops):
        others = sorted(folder.name for folder in tops if folder not in named)
        raise DataError(
            f"{root} holds split folders and others side by side",
            expected="class folders only, or train, validation and test folders only",
            received=f"splits {[folder.name for folder in named]}, others {others}",
            fix="move the other folders away, or name one of the split folders as the root",
        )
    if not nested:
        yield from _class_files(tops, "", problems)
        return
    for folder in named:
        try:
            classes = _folders(folder, problems, (root.resolve(), folder.resolve()))
        except OSError as error:
            problems.append((str(folder), "unreadable directory", str(error)))
            continue
        yield from _class_files(classes, SPLIT_NAMES[folder.name.lower()], problems)


def _class_files(
    folders: list[Path], split: str, problems: list[Problem]
) -> Iterator[tuple[str, str, str]]:
    for folder in folders:
        yield "", folder.name, split
        for path in _walk(folder, problems, (folder.parent.resolve(),)):
            yield str(path), folder.name, split


def _has_folder(folder: Path) -> bool:
    try:
        return any(os.path.isdir(child) for child in folder.iterdir())
    except OSError:
        # Listed again by the caller, which reports it.
        return True


def _entries(folder: Path, problems: list[Problem]) -> list[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    kept = []
    for name in names:
        if name in _JUNK:
            continue
        # Neither tables nor JSON hold a name that is not text.
        printable = os.fsencode(folder / name).decode("utf-8", "backslashreplace")
        if printable != str(folder / name):
            problems.append((printable, "unreadable file", "the name is not UTF-8: rename it"))
        elif name.startswith("."):
            problems.append((str(folder / name), "hidden", "the name begins with a dot"))
        else:
            kept.append(folder / name)
    return kept


def _folders(folder: Path, problems: list[Problem], above: tuple[Path, ...]) -> list[Path]:
    """The directories of a folder that holds no photos of its own."""
    found = []
    for path in _entries(folder, problems):
        if not os.path.isdir(path):
            problems.append((str(path), "outside a class folder", f"lies in {folder}"))
        elif path.resolve() in above:
            problems.append((str(path), "symlink loop", f"leads to {path.resolve()}"))
        else:
            found.append(path)
    return found


def _walk(folder: Path, problems: list[Problem], above: tuple[Path, ...]) -> Iterator[Path]:
    here = folder.resolve()
    if here in above or any(here in parent.parents for parent in above):
        problems.append((str(folder), "symlink loop", f"leads to {here}"))
        return
    try:
        entries = _entries(folder, problems)
    except OSError as error:
        problems.append((str(folder), "unreadable directory", f"{type(error).__name__}: {error}"))
        return
    for path in entries:
        # Unlike Path.is_dir, False where a directory above forbids to look.
        if os.path.isdir(path):
            yield from _walk(path, problems, (*above, here))
        else:
            yield path
