import errno
import sqlite3
from pathlib import Path

import pytest

from kpipe.core.disk_errors import translate_disk_errors
from kpipe.errors import StoreError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full"),
        (OSError("h5py wrote 0 bytes: No space left on device"), "is full"),
        (sqlite3.OperationalError("database or disk is full"), "is full"),
        (PermissionError(errno.EACCES, "Permission denied", "out/.cache"), "cannot be written"),
        (OSError(errno.EROFS, "Read-only file system", "out/a"), "cannot be written"),
    ],
)
def test_a_full_or_read_only_disk_is_a_store_error(tmp_path, monkeypatch, error, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=words), translate_disk_errors(tmp_path / "out"):
        raise error


def folder(path):
    path.mkdir(parents=True)


def dangling(path):
    path.parent.mkdir()
    path.symlink_to("/nowhere/file")


def on_the_way(path):
    path.parent.touch()


@pytest.mark.parametrize(
    ("make", "obstacle"), [(folder, "out/a"), (dangling, "out/a"), (on_the_way, "out")]
)
def test_what_is_in_the_place_of_a_file_is_named(tmp_path, monkeypatch, make, obstacle):
    monkeypatch.chdir(tmp_path)
    make(Path("out/a"))
    with pytest.raises(StoreError) as raised, translate_disk_errors(Path("out")):
        Path("out/a").write_text("")
    assert raised.value.fix.startswith(f"rename or remove {obstacle}, or pass another path")


def test_the_target_of_a_rename_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / ".a").touch()
    with pytest.raises(StoreError) as raised, translate_disk_errors(tmp_path):
        (tmp_path / ".a").replace(tmp_path / "a")
    assert raised.value.fix.startswith(f"rename or remove {tmp_path / 'a'},")


def test_a_folder_that_another_program_removed_is_named(tmp_path):
    with (
        pytest.raises(StoreError, match="cannot be written") as raised,
        translate_disk_errors(tmp_path),
    ):
        (tmp_path / "run" / "journal.jsonl").write_text("")
    assert "run again if another program removed it" in raised.value.fix
    with pytest.raises(FileNotFoundError), translate_disk_errors(tmp_path):
        (tmp_path / "absent").read_text()


def test_other_errors_pass_unchanged(tmp_path):
    elsewhere = PermissionError(errno.EACCES, "Permission denied", "/photos/a.jpg")
    with pytest.raises(PermissionError), translate_disk_errors(tmp_path):
        raise elsewhere
