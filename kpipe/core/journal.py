"""The journal of a run: one JSON object a line, appended, never rewritten.

    {"time": "2026-01-31T12:00:00.000+00:00", "event": "epoch", "stage": "FineTune", ...}

`record` keeps an event and tells the listeners; `progress` only tells the listeners. A line cut
short by a kill is passed over when reading: the resumed run tells again what it began to say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["Event", "Journal", "Listener", "read_journal"]

Event = dict[str, Any]
Listener = Callable[[Event], None]


class Journal:
    """Appends events to a file.

    Args:
        path: the JSONL file; made when missing, continued when present.
        listeners: called with each event, kept or passing, in the process that records it.
        stage: the stage that every event is marked with.
    """

    def __init__(self, path: Path, listeners: tuple[Listener, ...] = (), stage: str = "") -> None:
        self.path = path
        self.listeners = listeners
        self.stage = stage

    def of(self, stage: str) -> Journal:
        """The same journal, its events marked with a stage."""
        return Journal(self.path, self.listeners, stage)

    def __getstate__(self) -> dict[str, Any]:
        # Listeners draw on a terminal: they stay in the process that has it.
        return {"path": self.path, "listeners": (), "stage": self.stage}

    def record(self, event: str, **facts: Any) -> None:
        """Keep an event: `facts` are JSON values."""
        line = self._event(event, facts)
        self._end_a_torn_line()
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._tell(line)

    def progress(self, event: str, **facts: Any) -> None:
        """Tell the listeners something that is not worth keeping, such as a step of an epoch."""
        self._tell(self._event(event, facts))

    def _event(self, event: str, facts: dict[str, Any]) -> Event:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        mark = {"stage": self.stage} if self.stage else {}
        return {"time": now, "event": event, **mark, **facts}

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def _end_a_torn_line(self) -> None:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return
        with self.path.open("rb+") as stream:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")


def read_journal(path: Path) -> list[Event]:
    """The events of a journal, oldest first; a line torn by a kill is passed over."""
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events
