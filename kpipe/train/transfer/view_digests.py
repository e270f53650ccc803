"""Digests of the files of a view, by which damaged features are noticed before they are used.

view/sha256.json := {name of a file: its sha256}
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from kpipe.atomic import write_text

__all__ = ["damage", "seal"]

_DIGESTS = "sha256.json"


def seal(view: Path) -> None:
    """Write the digests of the files in a complete view."""
    write_text(view / _DIGESTS, json.dumps(_digests(view), indent=1))


def damage(view: Path) -> str:
    """Return what is wrong with a view; "" if its files are as they were when it was sealed."""
    try:
        expected = dict(json.loads((view / _DIGESTS).read_text(encoding="utf-8")))
        found = _digests(view)
    except (OSError, ValueError, TypeError) as error:
        return f"it cannot be verified ({type(error).__name__}: {error})"
    names = sorted(expected.keys() | found.keys())
    changed = [name for name in names if expected.get(name) != found.get(name)]
    return f"changed after it was written: {', '.join(changed)}" if changed else ""


def _digests(view: Path) -> dict[str, str]:
    found = {}
    for path in sorted(view.iterdir()):
        if path.name != _DIGESTS:
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
