from __future__ import annotations

from pathlib import Path

import pytest

from kpipe.atomic import replacing, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")

    def interrupted() -> None:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_write_replaces_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / ".a.txt").write_text("half of something longer")
    write_text(tmp_path / "a.txt", "whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "whole")]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.txt"
    with replacing(path, unique=True) as one, replacing(path, unique=True) as other:
        assert one != other and one.suffix == ".txt"
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
    assert len(list(path.parent.iterdir())) == 1
