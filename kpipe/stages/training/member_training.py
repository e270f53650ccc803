"""The members of an ensemble, trained one after another.

folder of a member := that of a network (see `network_training`), or failed.json, {"error": ...}

Each member has a folder, and resumes there. A member that failed in a run that went on without it
is not trained again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from kpipe.atomic import write_text
from kpipe.core.journal import Journal
from kpipe.errors import KpipeError, TrainingError
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.model_folder import is_saved
from kpipe.stages.training.network_training import train_network
from kpipe.stages.training.recipe import Recipe
from kpipe.stages.training.training_run import TrainingRun

__all__ = ["Member", "error_of", "refuse_too_few", "train_members"]

_FAILED = "failed.json"


@dataclasses.dataclass(frozen=True)
class Member:
    """One member of an ensemble.

    Attributes:
        title: its name in the journal.
        network: the name of its network in tables.
        recipe: how it is trained.
        photos: what it is trained on.
        folder: its model folder.
        follows: whether it goes on from the member before it, instead of from a new network.
    """

    title: str
    network: str
    recipe: Recipe
    photos: PhotoDataset
    folder: Path
    follows: bool = False

    def drop(self, error: Exception, journal: Journal) -> None:
        """Keep why the member failed in place of what it wrote."""
        reason = error.what if isinstance(error, KpipeError) else f"{type(error).__name__}: {error}"
        reason = " ".join(reason.split()).removeprefix(f"{self.title}: ")
        shutil.rmtree(self.folder, ignore_errors=True)
        write_text(self.folder / _FAILED, json.dumps({"error": reason}))
        journal.record("note", text=f"{self.title} failed, and the ensemble goes on: {reason}")

    @property
    def failure(self) -> str | None:
        """Why it failed, or None."""
        kept = self.folder / _FAILED
        return str(json.loads(kept.read_text("utf-8"))["error"]) if kept.exists() else None


def train_members(members: Sequence[Member], journal: Journal, *, go_on: bool) -> list[Member]:
    """Train members, each in its folder, and return those that did not fail.

    A member that goes on from one that failed goes on from the last that did not.

    Args:
        members: those with a model in their folder are not trained again.
        journal: records their epochs.
        go_on: drop a member that fails, and train the others.

    Raises:
        KpipeError: a member failed, which the error names; or, with `go_on`, all but one.
    """
    last: Path | None = None
    for member in members:
        if member.failure is None and not is_saved(member.folder):
            member.folder.mkdir(exist_ok=True)
            run = TrainingRun(member.title, member.folder, journal)
            start = last if member.follows else None
            try:
                with error_of(member.title):
                    train_network(member.recipe, member.photos, run, start)
            except (OSError, MemoryError):  # of the machine, which all members share
                raise
            except Exception as error:
                if not go_on:
                    raise
                member.drop(error, journal)
        last = member.folder if member.failure is None else last
    return refuse_too_few(members)


def refuse_too_few(members: Sequence[Member]) -> list[Member]:
    """Return the members that did not fail; raise a TrainingError unless there are two."""
    left = [member for member in members if member.failure is None]
    if len(left) < 2:
        raise TrainingError(
            f"only {len(left)} of {len(members)} members of the ensemble could be trained",
            expected="2 or more",
            received="; ".join(f"{m.title}: {m.failure}" for m in members if m.failure),
            fix="mend what failed and run again with --fresh",
        )
    return left


@contextlib.contextmanager
def error_of(name: str) -> Iterator[None]:
    """Name a member in the errors of the block."""
    try:
        yield
    except KpipeError as error:
        if not error.what.startswith(name):
            error.what = f"{name}: {error.what}"
        raise
