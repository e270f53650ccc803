import contextlib
import hashlib
import os

import pytest

from kpipe.core import digests
from kpipe.core.digests import Digests, combined, files_below


@pytest.fixture
def memory(tmp_path):
    with contextlib.closing(Digests(tmp_path / "memory" / "digests.sqlite")) as opened:
        yield opened


def test_a_file_digest_is_the_sha256_of_its_bytes(tmp_path, memory):
    path = tmp_path / "a.bin"
    path.write_bytes(b"some bytes")
    assert combined(memory.files(path)) == hashlib.sha256(b"some bytes").hexdigest()


def test_a_folder_digest_depends_on_names_and_contents_alone(tmp_path, memory):
    found = []
    for name in ("one", "two", "other"):
        folder = tmp_path / name
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "a.txt").write_text("other" if name == "other" else "same")
        found.append(combined(memory.files(folder)))
    assert found[0] == found[1] != found[2]


def test_a_name_that_is_not_utf8_is_part_of_a_folder_digest(tmp_path, memory):
    (tmp_path / "folder").mkdir()
    before = combined(memory.files(tmp_path / "folder"))
    name = os.fsencode(tmp_path / "folder") + b"/caf\xe9.png"
    with open(name, "wb") as stream:
        stream.write(b"one")
    one = combined(memory.files(tmp_path / "folder"))
    with open(name, "wb") as stream:
        stream.write(b"another")
    assert len({before, one, combined(memory.files(tmp_path / "folder"))}) == 3


def test_a_settled_file_is_read_once_and_again_after_any_write(tmp_path, memory, monkeypatch):
    monkeypatch.setattr(digests, "_UNSETTLED_NS", -1)
    path = tmp_path / "a.txt"
    path.write_text("first")
    status = path.stat()
    first = memory.file(path)
    with monkeypatch.context() as patch:
        patch.setattr(type(path), "open", None)
        assert memory.file(path) == first
    path.write_text("other")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert memory.file(path) == hashlib.sha256(b"other").hexdigest()


def test_a_file_written_just_now_is_not_cached(tmp_path, memory):
    path = tmp_path / "a.txt"
    path.write_text("first")
    memory.file(path)
    assert memory._database.execute("SELECT count(*) FROM digests").fetchone() == (0,)


def test_links_in_a_loop_end(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert [path.name for path in files_below(tmp_path)] == ["a.txt"]


def test_a_known_digest_is_that_of_a_file_hashed_before_and_unchanged(
    tmp_path, memory, monkeypatch
):
    monkeypatch.setattr(digests, "_UNSETTLED_NS", -1)
    path = tmp_path / "a.txt"
    path.write_text("first")
    assert memory.known(path) == ""
    digest = memory.file(path)
    assert memory.known(path) == digest
    path.write_text("other")
    assert memory.known(path) == ""
    path.unlink()
    assert memory.known(path) == ""
