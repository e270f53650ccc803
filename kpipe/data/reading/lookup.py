r"""Find the files that the cells of a table name, and photos beside them that no cell names.

cell                 file
exact                the file of that name
with \               the file with / instead
another spelling     the only entry of that folder whose name differs just in case or in Unicode
                     composition
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from kpipe.data.manifest import Problem
from kpipe.pixels import SUFFIXES
from kpipe.printable import cell_text, shortened

__all__ = ["Lookup", "each_once", "unlisted"]


class Lookup:
    """A search for files by name.

    Args:
        root: folder of relative names; None is the working directory.

    Attributes:
        problems: names that are not spelled as those of their files.
    """

    def __init__(self, root: str | Path | None) -> None:
        self._root = os.path.abspath(root if root is not None else ".")
        self._folders: dict[str, dict[str, list[str]]] = {}
        self.problems: list[Problem] = []

    def find(self, name: str) -> str:
        """Return the absolute path of a file, even if there is none."""
        # System calls refuse null characters.
        name = name.replace("\0", "\\0")
        # Joining the root with an absolute name gives that name.
        path = os.path.normpath(os.path.join(self._root, name))
        if os.path.lexists(path):
            return path
        # A table that kpipe wrote has escapes of invisible characters, and of formulas.
        written = os.path.normpath(os.path.join(self._root, cell_text(name).replace("\0", "\\0")))
        if written != path and os.path.lexists(written):
            return written
        slashed = os.path.normpath(os.path.join(self._root, name.strip().replace("\\", "/")))
        found = slashed if os.path.lexists(slashed) else self._respelled(slashed)
        if not found:
            return path
        self.problems.append((found, "other spelling in the table", shortened(repr(name))))
        return found

    def _respelled(self, path: str) -> str:
        """The only path with this spelling apart from case and composition, else ""."""
        found = os.sep
        for part in Path(path).parts[1:]:
            there = os.path.join(found, part)
            if not os.path.lexists(there):
                names = self._entries(found)[_folded(part)]
                names = [name for name in names if _composed(name) == _composed(part)] or names
                if len(names) != 1:
                    return ""
                there = os.path.join(found, names[0])
            found = there
        return found

    def _entries(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._folders:
            found = self._folders[folder] = defaultdict(list)
            try:
                names = sorted(os.listdir(folder))
            except OSError:
                # The file is then reported as missing.
                names = []
            for name in names:
                found[_folded(name)].append(name)
        return self._folders[folder]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(_composed(name).casefold())


def unlisted(files: Iterable[str], root: str | Path | None) -> list[Problem]:
    """Return the photos, by extension, that lie beside listed files and are not listed.

    Args:
        files: the listed files.
        root: folder to search with all folders below it; None searches only the folders of the
            listed files.
    """
    listed = {file for file in files if file}
    folders = {os.path.dirname(file) for file in listed}
    found = {path for folder in folders for path in _photos(folder)}
    if root is not None:
        # Links to folders are not followed: there may be loops.
        below = (folder for folder, *_ in os.walk(os.path.abspath(root)))
        found |= {path for folder in below if folder not in folders for path in _photos(folder)}
    left = sorted(found - listed)
    if left:
        # The same file may be listed under another path.
        real = {os.path.realpath(file) for file in listed}
        left = [path for path in left if os.path.realpath(path) not in real]
    return [(path, "file without a row", "no row of the table names it") for path in left]


def _photos(folder: str) -> Iterator[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        # Files listed in it are reported as missing or unreadable.
        return
    for name in names:
        if name.lower().endswith(SUFFIXES) and not name.startswith("."):
            path = os.path.join(folder, name)
            # Neither tables nor JSON can hold a name that is not UTF-8.
            yield os.fsencode(path).decode("utf-8", "backslashreplace")


def each_once(entries: pd.DataFrame, problems: list[Problem]) -> pd.DataFrame:
    """Drop rows that repeat the path and label of another, and add them to the problems."""
    parts = [os.path.split(path) for path in entries["path"].tolist()]
    folders = {folder: os.path.realpath(folder) for folder in {folder for folder, _ in parts}}
    rows = entries.assign(path=[f"{folders[folder]}{os.sep}{name}" for folder, name in parts])
    if not rows.duplicated(["path", "label"]).any():
        return entries
    declared = rows.groupby(["path", "label"])["split"].transform("max") != ""
    twice = rows.duplicated(["path", "label", "split"]) | (declared & (rows["split"] == ""))
    problems += [(path, "listed twice", "kept once") for path in entries["path"][twice]]
    return entries[~twice]
