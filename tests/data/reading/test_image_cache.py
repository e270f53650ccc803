from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from kpipe.data import from_folder
from kpipe.data import image_info as image_info_module
from kpipe.data.file_status import trusted_status
from kpipe.data.image_info import ImageInfo
from kpipe.data.reading import scanning
from kpipe.data.reading.image_cache import ImageCache
from kpipe.errors import DataError

PHOTO = ImageInfo(sha256="aa", format="PNG", mode="RGB", width=4, height=3, hash=b"12345678")


def test_image_infos_are_read_back(tmp_path: Path) -> None:
    with ImageCache(tmp_path / "a" / "photos.sqlite") as cache:
        cache.add([("/p", "1 2 3 4", PHOTO)])
    with ImageCache(tmp_path / "a" / "photos.sqlite") as cache:
        assert cache.digests({"/p": "1 2 3 4"}) == {"/p": "aa"}
        assert cache.infos(["aa", "bb"]) == {"aa": PHOTO}
        assert cache.info("aa") == PHOTO and cache.info("bb") is None


def test_a_file_that_changed_has_no_digest_any_more(tmp_path: Path) -> None:
    with ImageCache(tmp_path / "photos.sqlite") as cache:
        cache.add([("/p", "1 2 3 4", PHOTO)])
        assert cache.digests({"/p": "1 2 3 5"}) == {}
        assert cache.digests({"/p": ""}) == {}


def test_what_another_file_of_the_same_content_may_be_is_not_kept(tmp_path: Path) -> None:
    no_image = ImageInfo(sha256="cc", kind="not an image", detail="the name ends in '.txt'")
    torn = ImageInfo(sha256="dd", kind="truncated", detail="…")
    with ImageCache(tmp_path / "photos.sqlite") as cache:
        cache.add([("/n", "1", no_image), ("/t", "1", torn)])
        assert cache.infos(["cc", "dd"]) == {"dd": torn}


def test_results_are_cached_and_the_oldest_dropped(tmp_path: Path) -> None:
    with ImageCache(tmp_path / "photos.sqlite") as cache:
        for number in range(25):
            cache.add_result(f"q{number}", bytes([number]))
        assert cache.result("q24") == bytes([24])
        assert cache.result("q0") is None


@pytest.mark.parametrize("damage", [b"no database at all" * 99, b""])
def test_a_damaged_cache_is_reported_and_rebuilt(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "photos.sqlite"
    path.write_bytes(damage)
    if damage:
        with pytest.warns(UserWarning, match="rebuilt"), ImageCache(path) as cache:
            cache.add([("/p", "1", PHOTO)])
    else:
        with ImageCache(path) as cache:
            cache.add([("/p", "1", PHOTO)])
    with ImageCache(path) as cache:
        assert cache.info("aa") == PHOTO


def test_a_cache_of_another_version_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "photos.sqlite"
    with ImageCache(path) as cache:
        cache.add([("/p", "1", PHOTO)])
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    with ImageCache(path) as cache:
        assert cache.info("aa") is None


def test_a_folder_in_its_place_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be used"):
        ImageCache(tmp_path)


def test_a_file_touched_just_now_has_no_status_to_rely_on(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    assert trusted_status(str(path)) == ""
    assert trusted_status(str(tmp_path / "none")) == ""


def test_a_second_scan_decodes_nothing_and_finds_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cat" / "torn.png").write_bytes((folder / "cat" / "00.png").read_bytes()[:-500])
    first = from_folder(folder, cache=tmp_path / "photos.sqlite")

    def refuse(*_: object) -> ImageInfo:
        raise AssertionError("decoded again")

    monkeypatch.setattr(image_info_module, "_decode_info", refuse)
    second = from_folder(folder, cache=tmp_path / "photos.sqlite")
    assert second.digest == first.digest
    assert second.table.equals(first.table) and second.problems.equals(first.problems)


def test_a_moved_photo_is_read_but_not_decoded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_folder(folder, cache=tmp_path / "photos.sqlite")
    (folder / "cat" / "00.png").rename(folder / "dog" / "moved.png")
    monkeypatch.setattr(image_info_module, "_decode_info", lambda *_: pytest.fail("decoded again"))
    table = from_folder(folder, cache=tmp_path / "photos.sqlite").table
    assert table["path"].str.endswith("moved.png").sum() == 1


def test_settled_files_are_not_even_opened(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kpipe.data.file_status._UNSETTLED_NS", -(10**12))
    first = from_folder(folder, cache=tmp_path / "photos.sqlite")
    monkeypatch.setattr(scanning, "read_image_info", lambda *_, **__: pytest.fail("opened again"))
    assert from_folder(folder, cache=tmp_path / "photos.sqlite").digest == first.digest


def test_damage_found_while_reading_is_reported_and_the_cache_rebuilt(tmp_path: Path) -> None:
    path = tmp_path / "photos.sqlite"
    rows = [(f"/p{place}", "1", replace(PHOTO, sha256=f"{place}")) for place in range(500)]
    with ImageCache(path) as cache:
        cache.add(rows)
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    path.write_bytes(content)
    with ImageCache(path) as cache:
        with pytest.warns(UserWarning, match="rebuilt"):
            assert cache.infos(["7"]) == {}
        cache.add(rows)
        assert cache.info("7") == rows[7][2]


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE images",
        "ALTER TABLE images DROP COLUMN width",
        "UPDATE images SET width = 'x'",
        "UPDATE images SET format = NULL",
        "UPDATE images SET thumbnail = 5",
        "UPDATE images SET sha256 = CAST(x'6161' AS TEXT), mode = CAST(x'ff' AS TEXT)",
    ],
)
def test_a_table_of_other_content_is_rebuilt(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "photos.sqlite"
    with ImageCache(path) as cache:
        cache.add([("/p", "1", PHOTO)])
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(damage)
    with ImageCache(path) as cache:
        with pytest.warns(UserWarning, match="rebuilt from the photos"):
            assert cache.info("aa") is None
        cache.add([("/p", "1", PHOTO)])
        assert cache.info("aa") == PHOTO


@pytest.mark.parametrize("damage", ["x'00ff'", "'text'", "NULL", "substr(result, 1, 33)"])
def test_a_damaged_result_is_none(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "photos.sqlite"
    with ImageCache(path) as cache:
        cache.add_result("q", b"12345678")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(f"UPDATE results SET result = {damage}")
    with ImageCache(path) as cache:
        assert cache.result("q") is None
        cache.add_result("q", b"")
        assert cache.result("q") == b""
