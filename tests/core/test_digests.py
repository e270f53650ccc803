import contextlib
import hashlib
import os
import sqlite3

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


def other_columns(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE digests (name TEXT)")


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"no database" * 99), other_columns]
)
def test_a_damaged_cache_is_rebuilt(tmp_path, damage):
    (tmp_path / "a.txt").write_text("ab")
    os.utime(tmp_path / "a.txt", (0, 0))
    damage(tmp_path / "digests.sqlite")
    with pytest.warns(UserWarning, match="is damaged and is rebuilt"):
        digests = Digests(tmp_path / "digests.sqlite")
    assert digests.file(tmp_path / "a.txt") == hashlib.sha256(b"ab").hexdigest()
    digests.close()


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """A cache of one file and of many that do not exist."""
    monkeypatch.setattr("kpipe.core.digests._UNSETTLED_NS", 0)
    cache, file = tmp_path / "digests.sqlite", tmp_path / "a.txt"
    file.write_text("ab")
    with contextlib.closing(Digests(cache)) as digests:
        digests.file(file)
    with contextlib.closing(sqlite3.connect(cache)) as database, database:
        rows = [(f"/{number:05}" * 20, "1 2 3 4", "0" * 64) for number in range(2000)]
        database.executemany("INSERT INTO digests VALUES (?, ?, ?)", rows)
    return cache, file


@pytest.mark.parametrize("value", [5, b"\x00\xff", "no digest", "F" * 64, None])
def test_a_row_that_holds_no_digest_is_computed_again(filled, value):
    cache, file = filled
    with contextlib.closing(sqlite3.connect(cache)) as database, database:
        database.execute("UPDATE digests SET sha256 = ?", (value,))
    for _ in range(2):
        with contextlib.closing(Digests(cache)) as digests:
            assert digests.file(file) == hashlib.sha256(b"ab").hexdigest()
    assert digests.known(file) == ""  # closed


def test_damage_that_a_search_meets_is_reported_and_rebuilt(filled):
    cache, file = filled
    content = bytearray(cache.read_bytes())
    half = len(content) // 2  # opening reads the first pages alone
    content[half:] = b"\x7f" * (len(content) - half)
    cache.write_bytes(content)
    digests = Digests(cache)
    with pytest.warns(UserWarning, match="is damaged and is rebuilt"):
        assert digests.file(file) == hashlib.sha256(b"ab").hexdigest()
    digests.close()
    with contextlib.closing(Digests(cache)) as digests:
        assert digests.known(file) == hashlib.sha256(b"ab").hexdigest()


@pytest.mark.parametrize("locked_first", [True, False])
def test_a_cache_that_another_program_locks_is_waited_for_once(filled, monkeypatch, locked_first):
    cache, file = filled
    monkeypatch.setattr("kpipe.core.digests._LONGEST_WAIT", 0.01)
    digests = None if locked_first else Digests(cache)
    with contextlib.closing(sqlite3.connect(cache)) as other:
        other.execute("BEGIN EXCLUSIVE")
        digests = digests or Digests(cache)
        assert digests.file(file) == hashlib.sha256(b"ab").hexdigest()
        assert digests._database is None
        digests.close()


@pytest.mark.parametrize("place", ["folder", "file/digests.sqlite", "n" * 300])
def test_a_cache_that_cannot_be_opened_only_costs_time(tmp_path, place):
    (tmp_path / "a.txt").write_text("ab")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    digests = Digests(tmp_path / place)
    assert digests.file(tmp_path / "a.txt") == hashlib.sha256(b"ab").hexdigest()
    assert digests.file(tmp_path / "a.txt") == hashlib.sha256(b"ab").hexdigest()
    digests.close()


def test_a_cache_that_is_read_only_is_read(tmp_path, monkeypatch):
    file, cache = tmp_path / "a.txt", tmp_path / "digests.sqlite"
    file.write_text("ab")
    os.utime(file, (0, 0))
    monkeypatch.setattr("kpipe.core.digests._UNSETTLED_NS", 0)
    with contextlib.closing(Digests(cache)) as digests:
        digests.file(file)
    real = sqlite3.connect
    read_only = f"file:{cache}?mode=ro"
    monkeypatch.setattr(sqlite3, "connect", lambda *_, **__: real(read_only, uri=True))
    (tmp_path / "b.txt").write_text("cd")
    with contextlib.closing(Digests(cache)) as digests:
        assert digests.known(file) == hashlib.sha256(b"ab").hexdigest()
        assert digests.file(tmp_path / "b.txt") == hashlib.sha256(b"cd").hexdigest()


def test_hashing_does_not_lock_the_cache_for_other_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("kpipe.core.digests._UNSETTLED_NS", 0)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    one, other = Digests(tmp_path / "digests.sqlite"), Digests(tmp_path / "digests.sqlite")
    one.file(tmp_path / "a.txt")  # not saved yet
    with contextlib.closing(sqlite3.connect(tmp_path / "digests.sqlite", timeout=0)) as database:
        database.execute("BEGIN IMMEDIATE")
    other.file(tmp_path / "b.txt")
    one.close()
    assert other.known(tmp_path / "a.txt") and other.known(tmp_path / "b.txt")
    other.close()
