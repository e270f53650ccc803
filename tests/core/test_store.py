import errno
import sqlite3

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


def test_other_errors_pass_unchanged(tmp_path):
    elsewhere = PermissionError(errno.EACCES, "Permission denied", "/photos/a.jpg")
    with pytest.raises(PermissionError), translate_disk_errors(tmp_path):
        raise elsewhere
