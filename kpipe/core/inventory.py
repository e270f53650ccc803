"""What the store of results holds, and which runs need it.

    a run needs a result := its journal names the result as the newest one of a stage

A result that no run below the root needs may be removed. Removing a run's folder, with this module
or by hand, therefore frees the results that only this run needs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from kpipe.core.journal import parse_journal
from kpipe.core.lock import file_lock
from kpipe.core.store import Store, discard
from kpipe.errors import StoreError, nearest

__all__ = ["Stored", "list_results", "remove_results", "run_folders"]

_NAME = re.compile(r"([0-9a-f]{64})(?:\.(partial|damaged|replaced|removed))?")


@dataclasses.dataclass(frozen=True)
class Stored:
    """Something that the store holds.

    Attributes:
        path: its folder.
        key: the key of the result.
        stage: the stage that made it; empty if unknown.
        state: "finished", "unfinished", "damaged", or "left over" from an interrupted removal.
        size: bytes of its files.
        modified: when it was made or last written, in seconds since 1970.
        runs: the runs that need it, as `<pipeline>/<run>`.
    """

    path: Path
    key: str
    stage: str
    state: str
    size: int
    modified: float
    runs: tuple[str, ...]


def list_results(root: Path, without: Collection[Path] = ()) -> list[Stored]:
    """Return everything that the store of results holds, oldest first.

    Args:
        root: the folder of all results, `saved_models`.
        without: folders of runs that count as removed.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.core.inventory import list_results
        >>> list_results(Path("saved_models"))
        []
    """
    cache = root / ".cache"
    if not cache.is_dir():
        return []
    with contextlib.closing(Store(cache, create=False)) as store:
        finished = {entry.key: entry.about.get("stage", "") for entry in store.entries()}
    needs = {run: _needs(run) for run in _all_runs(root) if run not in without}
    stages = {key: stage for need in needs.values() for stage, key in need.items()} | finished
    found = []
    for path in cache.iterdir():
        if match := _NAME.fullmatch(path.name):
            key, suffix = match.groups()
            state = {None: "finished", "partial": "unfinished", "damaged": "damaged"}.get(suffix)
            if state == "finished" and key not in finished:
                state = "damaged"
            runs = sorted(_name(run) for run, need in needs.items() if key in need.values())
            needed = () if suffix not in (None, "partial") else tuple(runs)
            size, modified = _size(path), path.lstat().st_mtime
            stage = str(stages.get(key, ""))
            found.append(Stored(path, key, stage, state or "left over", size, modified, needed))
    return sorted(found, key=lambda one: one.modified)


def remove_results(root: Path, runs: Sequence[Path] = ()) -> list[Stored]:
    """Remove the results that no run needs, and the folders of runs; return those results.

    Args:
        root: the folder of all results.
        runs: folders of runs to remove first.

    Raises:
        StoreError: a run is in progress.
    """
    locks = root / ".cache" / "locks"
    if not locks.parent.is_dir():
        return []
    locks.mkdir(exist_ok=True)
    with file_lock(locks / "store"):
        for run in runs:
            discard(run)
            with contextlib.suppress(OSError):  # other runs of the pipeline
                run.parent.rmdir()
        unneeded = [one for one in list_results(root) if not one.runs]
        for one in unneeded:
            discard(one.path)
            with contextlib.suppress(OSError):
                (locks / one.key).unlink()
    return unneeded


def run_folders(root: Path, names: Sequence[str]) -> list[Path]:
    """Return the folders of runs that are given by path, or as `<pipeline>/<run>`.

    Raises:
        StoreError: there is no such run below the root.
    """
    runs = {_name(run): run for run in _all_runs(root)}
    by_path = {run.resolve(): run for run in runs.values()}
    found = []
    for name in names:
        run = runs.get(name.strip("/")) or by_path.get(Path(name).resolve())
        if run is None:
            raise StoreError(
                f"there is no run {name} below {root}",
                expected="<pipeline>/<run>, or the path of a run's folder",
                received=name,
                fix=nearest(name, runs) if runs else "there are no runs; see --root",
            )
        found.append(run)
    return found


def _all_runs(root: Path) -> Iterator[Path]:
    for journal in sorted(root.glob("[!.]*/*/journal.jsonl")):
        yield journal.parent


def _name(run: Path) -> str:
    return f"{run.parent.name}/{run.name}"


def _needs(run: Path) -> Mapping[str, str]:
    """Return stage -> key of its newest result, finished or begun."""
    journal = run / "journal.jsonl"
    try:
        events, unreadable = parse_journal(journal)
    except OSError as error:
        raise StoreError(
            f"{journal} cannot be read, so it is unknown which results its run needs",
            received=str(error),
            fix=f"make it readable; or rename or remove {journal}, if the run is of no use",
        ) from error
    if unreadable:
        warnings.warn(
            f"{unreadable} lines of {journal} are no events; results that only they name count "
            "as needed by no run",
            stacklevel=2,
        )
    return {
        event["stage"]: event["key"]
        for event in events
        if event["event"] in ("stage_started", "stage_skipped", "stage_finished")
        and isinstance(event.get("key"), str)
    }


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(path)
        for name in names
    )
