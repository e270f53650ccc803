"""Refuse to resume in a folder that holds something else.

identity := {name: value}    everything that must be the same for a run to resume in the folder
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kpipe.atomic import replacing
from kpipe.errors import KpipeError

__all__ = ["claim", "refuse_other"]


def claim(path: Path, identity: Mapping[str, Any], other: str, *, error: type[KpipeError]) -> None:
    """Store an identity in a new folder; refuse a folder that holds a different one.

    Args:
        path: the JSON file of the identity, in the folder to claim.
        identity: name -> a plain value.
        other: what a folder with a different identity holds, such as "another training".
        error: what to raise.

    Raises:
        KpipeError: of the type `error`, if the identities differ or the file is unreadable.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.errors import TrainingError
        >>> from kpipe.resume_identity import claim
        >>> claim(Path("out/training.json"), {"epochs": 3}, "another training", error=TrainingError)
        >>> claim(Path("out/training.json"), {"epochs": 5}, "another training", error=TrainingError)
        Traceback (most recent call last):
        kpipe.errors.TrainingError: the folder out holds another training: epochs
          expected: epochs=5
          received: epochs=3
          what to do: use another folder, or remove this one to start again
    """
    if not path.exists():
        # Two processes may claim a folder at once.
        with replacing(path, unique=True) as temporary:
            text = json.dumps(identity, indent=1, default=lambda number: number.item())  # NumPy's
            temporary.write_text(text, encoding="utf-8")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(stored, dict):
            raise ValueError(f"expected a JSON object, found {stored!r:.80}")
    except (OSError, ValueError, RecursionError) as problem:
        raise error(
            f"{path} cannot be read, so it is unknown what the folder holds",
            received=str(problem),
            fix=f"remove the folder {path.parent} to start again",
        ) from problem
    refuse_other(path.parent, stored, identity, other, error=error)


def refuse_other(
    folder: Path,
    stored: Mapping[str, Any],
    identity: Mapping[str, Any],
    other: str,
    *,
    error: type[KpipeError],
) -> None:
    """Refuse a folder whose stored identity is a different one.

    Args:
        folder: the folder, for the message.
        stored: the identity found in it.
        identity: the identity of the run that wants to resume.
        other: what a folder with a different identity holds, such as "another training".
        error: what to raise.

    Raises:
        KpipeError: of the type `error`, naming every value that differs.
    """
    names = sorted({*stored, *identity})
    differing = [name for name in names if stored.get(name) != identity.get(name)]
    if differing:
        raise error(
            f"the folder {folder} holds {other}: {', '.join(differing)}",
            expected="; ".join(f"{name}={identity.get(name)}" for name in differing),
            received="; ".join(f"{name}={stored.get(name)}" for name in differing),
            fix="use another folder, or remove this one to start again",
        )
