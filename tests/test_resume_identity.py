from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kpipe.errors import PruneError, TrainingError
from kpipe.resume_identity import claim, refuse_other


def test_a_folder_is_claimed_once_and_again_by_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "new" / "training.json"
    for rate in (np.float32(0.1), float(np.float32(0.1))):
        claim(path, {"rate": rate}, "another training", error=TrainingError)
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("content", [b"{", b"", b"null", b"[]", b"5", b"\xff\xfe", None])
def test_an_unreadable_identity_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "training.json"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be read"):
        claim(tmp_path / "training.json", {}, "another training", error=TrainingError)


def test_every_difference_is_named(tmp_path: Path) -> None:
    stored, identity = {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 5, "d": 4}
    with pytest.raises(PruneError, match="holds another loop: b, c, d") as caught:
        refuse_other(tmp_path, stored, identity, "another loop", error=PruneError)
    assert caught.value.expected == "b=5; c=None; d=4"
    assert caught.value.received == "b=2; c=3; d=None"
