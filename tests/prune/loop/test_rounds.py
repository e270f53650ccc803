"""Damaged records of finished rounds: the loop starts again, and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from kpipe.prune.loop.rounds import RoundStore

ROW = {"round": 0, "macs": 1, "share": 1.0, "params": 1, "before": 0.5, "after": 0.5}
SOUND: dict[str, Any] = {"request": {"a": 1}, "sha256": [""], "rounds": [ROW]}
DAMAGES = {
    "torn": b'{"req',
    "null": b"null",
    "a list": b"[]",
    "no text": b"\xff\xfe",
    "deep": b"[" * 10**6,
    "a digest is missing": json.dumps({**SOUND, "sha256": []}).encode(),
    "no digests": json.dumps({**SOUND, "sha256": None}).encode(),
    "a row of another type": json.dumps({**SOUND, "rounds": [5]}).encode(),
    "an empty row": json.dumps({**SOUND, "rounds": [{}]}).encode(),
}


@pytest.fixture
def rounds(tmp_path: Path) -> RoundStore:
    return RoundStore(tmp_path, {"a": 1}, cast(Any, None))  # the model is not read here


def test_a_sound_record_is_read(rounds: RoundStore) -> None:
    (rounds.folder / "history.json").write_text(json.dumps(SOUND))
    assert [row.macs for row in rounds.history()] == [1]


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_record_starts_the_loop_again(rounds: RoundStore, name: str) -> None:
    (rounds.folder / "history.json").write_bytes(DAMAGES[name])
    with pytest.warns(UserWarning, match="the loop restarts from round 0"):
        assert rounds.history() == []
