"""List the files under a folder, entering each directory once.

    root/class/**/photo            no split declared
    root/train|val|test/class/**   splits declared by the folders
    root/**/photo                  no classes

Hidden entries, symlink loops and directories that cannot be listed become problems; files of the
operating system (.DS_Store, Thumbs.db, __MACOSX) are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kpipe.class_names import refuse_class_names
from kpipe.errors import DataError
from kpipe.pixels import SUFFIXES
from kpipe.system_files import SYSTEM_FILES

if TYPE_CHECKING:
    # Not pandas: `kpipe plan` lists the classes.
    from kpipe.data.manifest import Problem

__all__ = ["SPLIT_NAMES", "listed_classes", "listed_files", "listed_photos"]

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


def listed_files(root: Path, problems: list[Problem]) -> Iterator[tuple[str, str, str]]:
    """Yield (path, class, split) of every file, and ("", class, split) of each class folder.

    Args:
        root: an existing folder.
        problems: list to which skipped entries are added.

    Raises:
        DataError: if the root cannot be listed, or mixes split folders with others.
    """
    for folder, split in _class_folders(root, problems):
        above, name = os.path.split(folder)
        yield "", name, split
        for path in _walk(folder, problems, (os.path.realpath(above),)):
            yield path, name, split


def listed_photos(root: Path, problems: list[Problem]) -> Iterator[str]:
    """Yield the path of every file of a folder without classes, at any depth.

    Args:
        root: an existing folder.
        problems: list to which skipped entries are added.
    """
    yield from _walk(os.path.abspath(root), problems, ())


def listed_classes(roots: Sequence[str]) -> set[str]:
    """Return the names of the class folders, without listing the files in them.

    Raises:
        DataError: as `listed_files`, or a name is unusable.
    """
    folders = [folder for root in roots for folder, _ in _class_folders(Path(root), [])]
    names = {os.path.basename(folder) for folder in folders}
    refuse_class_names(names, ", ".join(roots), DataError)
    return names


def _class_folders(root: Path, problems: list[Problem]) -> Iterator[tuple[str, str]]:
    """Each class folder, and the split that it declares."""
    top = os.path.realpath(root)
    try:
        tops = _folders(str(root), problems, (top,))
    except OSError as error:
        raise DataError(f"{root} cannot be listed", received=str(error)) from error
    named = [folder for folder in tops if os.path.basename(folder).lower() in SPLIT_NAMES]
    nested = [folder for folder in named if _has_folder(folder)]
    if nested and len(named) < len(tops):
        others = sorted(os.path.basename(folder) for folder in tops if folder not in named)
        raise DataError(
            f"{root} holds both split folders and other folders",
            expected="only class folders, or only train, validation and test folders",
            received=f"splits {list(map(os.path.basename, named))}, others {others}",
            fix="move the other folders away, or name one of the split folders as the root",
        )
    if not nested:
        yield from ((folder, "") for folder in tops)
        return
    for folder in named:
        try:
            classes = _folders(folder, problems, (top, os.path.realpath(folder)))
        except OSError as error:
            problems.append((folder, "unreadable directory", str(error)))
            continue
        split = SPLIT_NAMES[os.path.basename(folder).lower()]
        yield from ((name, split) for name in classes)


def _has_folder(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(map(_is_folder, entries))
    except OSError:
        # The caller lists it again and reports the error.
        return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # Unlike DirEntry.is_dir, isdir is False for a link to a target without permission.
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def _entries(folder: str, problems: list[Problem]) -> list[tuple[str, bool]]:
    """The paths in a folder, and whether each of them is a folder."""
    with os.scandir(folder) as entries:
        found = sorted((entry.name, _is_folder(entry)) for entry in entries)
    kept = []
    for name, is_folder in found:
        path = os.path.join(folder, name)
        if name in SYSTEM_FILES:
            continue
        if not _is_text(path):
            # Neither tables nor JSON can hold such a name.
            printable = os.fsencode(path).decode("utf-8", "backslashreplace")
            problems.append((printable, "unreadable file", "the name is not UTF-8: rename it"))
        elif name.startswith("."):
            problems.append((path, "hidden", "the name begins with a dot"))
        else:
            kept.append((path, is_folder))
    return kept


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _folders(folder: str, problems: list[Problem], above: tuple[str, ...]) -> list[str]:
    """The directories of a folder that should hold no photos itself."""
    found = []
    for path, is_folder in _entries(folder, problems):
        if not is_folder:
            sort = "photo " if path.lower().endswith(SUFFIXES) else ""
            problems.append((path, f"{sort}outside a class folder", f"lies in {folder}"))
        elif (real := os.path.realpath(path)) in above:
            problems.append((path, "symlink loop", f"leads to {real}"))
        else:
            found.append(path)
    return found


def _walk(folder: str, problems: list[Problem], above: tuple[str, ...]) -> Iterator[str]:
    here = os.path.realpath(folder)
    if any(here == parent or parent.startswith(here.rstrip(os.sep) + os.sep) for parent in above):
        problems.append((folder, "symlink loop", f"leads to {here}"))
        return
    try:
        entries = _entries(folder, problems)
    except OSError as error:
        problems.append((folder, "unreadable directory", f"{type(error).__name__}: {error}"))
        return
    for path, is_folder in entries:
        if is_folder:
            yield from _walk(path, problems, (*above, here))
        else:
            yield path
