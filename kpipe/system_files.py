"""The names of files and folders that operating systems leave among photos."""

from __future__ import annotations

__all__ = ["SYSTEM_FILES"]

SYSTEM_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX"})
