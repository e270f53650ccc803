"""The journal of a run: one JSON object per line, append-only.

    {"time": "2026-01-31T12:00:00.000+00:00", "event": "epoch", "stage": "FineTune", ...}

`record` stores an event and notifies the listeners; `progress` only notifies them. Reading skips
and counts lines that are not events, such as one truncated by a kill: the resumed run records the
event again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["Event", "Journal", "Listener", "parse_journal", "read_journal"]

Event = dict[str, Any]
Listener = Callable[[Event], None]

# The facts that readers of a journal rely on.
_FACTS: dict[str, dict[str, type]] = {
    "stage_started": {"stage": str, "continues": bool},
    "stage_skipped": {"stage": str, "key": str, "folder": str},
    "stage_finished": {"stage": str, "key": str, "folder": str},
    "stage_failed": {"stage": str, "error": str, "detail": str},
    "stage_refused": {"stage": str, "error": str, "detail": str},
    "note": {"text": str},
}


class Journal:
    """Append events to a file.

    Args:
        path: the JSONL file; created if missing, continued otherwise.
        listeners: called with every event, stored or not, in the recording process.
        stage: the stage to mark events with; empty for none.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.core.journal import Journal, read_journal
        >>> Journal(Path("journal.jsonl")).for_stage("FineTune").record("note", text="2 epochs")
        >>> [(event["stage"], event["text"]) for event in read_journal(Path("journal.jsonl"))]
        [('FineTune', '2 epochs')]
    """

    def __init__(self, path: Path, listeners: tuple[Listener, ...] = (), stage: str = "") -> None:
        self.path = path
        self.listeners = listeners
        self.stage = stage

    def for_stage(self, stage: str) -> Journal:
        """Return the same journal, marking events with a stage."""
        return Journal(self.path, self.listeners, stage)

    def __getstate__(self) -> dict[str, Any]:
        # Listeners draw on a terminal, so they stay in the process that owns it.
        return {"path": self.path, "listeners": (), "stage": self.stage}

    def record(self, event: str, **facts: Any) -> None:
        """Store an event with its JSON values, and notify the listeners."""
        entry = self._event(event, facts)
        self._end_truncated_line()
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._notify(entry)

    def progress(self, event: str, **facts: Any) -> None:
        """Notify the listeners of an event that is not worth storing, such as a training step."""
        self._notify(self._event(event, facts))

    def _event(self, event: str, facts: dict[str, Any]) -> Event:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        mark = {"stage": self.stage} if self.stage else {}
        return {"time": now, "event": event, **mark, **facts}

    def _notify(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def _end_truncated_line(self) -> None:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return
        with self.path.open("rb+") as stream:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")


def read_journal(path: Path) -> list[Event]:
    """Return the events of a journal, oldest first, without lines that are not events."""
    return parse_journal(path)[0]


def parse_journal(path: Path) -> tuple[list[Event], int]:
    """Return the events of a journal, oldest first, and the number of lines that are not events."""
    # Not `splitlines`: strings in JSON may hold other line separators of Unicode.
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    events = [_parse(line) for line in lines if line.strip()]
    found = [event for event in events if event is not None]
    return found, len(events) - len(found)


def _parse(line: str) -> Event | None:
    try:
        event = json.loads(line)
        kind, zone = event["event"], datetime.fromisoformat(event["time"]).tzinfo
        facts = {"event": str, **_FACTS.get(kind, {})}
        sound = zone is not None and all(type(event[name]) is of for name, of in facts.items())
        sound = sound and isinstance(event.get("stage", ""), str)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return event if sound else None
