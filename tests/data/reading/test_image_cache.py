from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from kpipe.data import from_folder
from kpipe.data import image_info as module_of_facts
from kpipe.data.image_info import ImageInfo
from kpipe.data.reading import scanning
from kpipe.data.reading.image_cache import ImageCache, file_status
from kpipe.errors import DataError

PHOTO = ImageInfo(sha256="aa", format="PNG", mode="RGB", width=4, height=3, hash=b"12345678")


def test_facts_come_back_as_they_went(tmp_path: Path) -> None:
    with ImageCache(tmp_path / "a" / "facts.sqlite") as cache:
        cache.remember([("/p", "1 2 3 4", PHOTO)])
    with ImageCache(tmp_path / "a" / "facts.sqlite") as cache:
        assert cache.digests({"/p": "1 2 3 4"}) == {"/p": "aa"}
        assert cache.facts(["aa", "bb"]) == {"aa": PHOTO}
        assert cache.content("aa") == PHOTO and cache.content("bb") is None


def test_a_file_that_changed_has_no_digest_any_more(tmp_path: Path) -> None:
    with ImageCache(tmp_path / "facts.sqlite") as cache:
        cache.remember([("/p", "1 2 3 4", PHOTO)])
        assert cache.digests({"/p": "1 2 3 5"}) == {}
        assert cache.digests({"/p": ""}) == {}


def test_what_another_file_of_the_same_content_may_be_is_not_kept(tmp_path: Path) -> None:
    no_image = ImageInfo(sha256="cc", kind="not an image", detail="the name ends in '.txt'")
    torn = ImageInfo(sha256="dd", kind="truncated", detail="…")
    with ImageCache(tmp_path / "facts.sqlite") as cache:
        cache.remember([("/n", "1", no_image), ("/t", "1", torn)])
        assert cache.facts(["cc", "dd"]) == {"dd": torn}


def test_answers_are_kept_and_the_oldest_let_go(tmp_path: Path) -> None:
    with ImageCache(tmp_path / "facts.sqlite") as cache:
        for number in range(25):
            cache.keep(f"q{number}", bytes([number]))
        assert cache.answer("q24") == bytes([24])
        assert cache.answer("q0") is None


@pytest.mark.parametrize("damage", [b"no database at all" * 99, b""])
def test_a_damaged_file_is_told_and_made_again(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "facts.sqlite"
    path.write_bytes(damage)
    if damage:
        with pytest.warns(UserWarning, match="made again"), ImageCache(path) as cache:
            cache.remember([("/p", "1", PHOTO)])
    else:
        with ImageCache(path) as cache:
            cache.remember([("/p", "1", PHOTO)])
    with ImageCache(path) as cache:
        assert cache.content("aa") == PHOTO


def test_facts_of_another_version_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "facts.sqlite"
    with ImageCache(path) as cache:
        cache.remember([("/p", "1", PHOTO)])
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    with ImageCache(path) as cache:
        assert cache.content("aa") is None


def test_a_folder_in_its_place_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be used"):
        ImageCache(tmp_path)


def test_a_file_touched_just_now_has_no_status_to_rely_on(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    assert file_status(str(path)) == ""
    assert file_status(str(tmp_path / "none")) == ""


def test_a_second_scan_decodes_nothing_and_finds_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cat" / "torn.png").write_bytes((folder / "cat" / "00.png").read_bytes()[:-500])
    first = from_folder(folder, cache=tmp_path / "facts.sqlite")

    def refuse(*_: object) -> ImageInfo:
        raise AssertionError("decoded again")

    monkeypatch.setattr(module_of_facts, "_decoded", refuse)
    second = from_folder(folder, cache=tmp_path / "facts.sqlite")
    assert second.digest == first.digest
    assert second.table.equals(first.table) and second.problems.equals(first.problems)


def test_a_moved_photo_is_read_but_not_decoded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_folder(folder, cache=tmp_path / "facts.sqlite")
    (folder / "cat" / "00.png").rename(folder / "dog" / "moved.png")
    monkeypatch.setattr(module_of_facts, "_decoded", lambda *_: pytest.fail("decoded again"))
    table = from_folder(folder, cache=tmp_path / "facts.sqlite").table
    assert table["path"].str.endswith("moved.png").sum() == 1


def test_settled_files_are_not_even_opened(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kpipe.data.reading.image_cache._UNSETTLED_NS", -(10**12))
    first = from_folder(folder, cache=tmp_path / "facts.sqlite")
    monkeypatch.setattr(scanning, "read_facts", lambda *_: pytest.fail("opened again"))
    assert from_folder(folder, cache=tmp_path / "facts.sqlite").digest == first.digest


def test_damage_that_shows_when_it_is_read_is_told_and_made_again(tmp_path: Path) -> None:
    path = tmp_path / "facts.sqlite"
    rows = [(f"/p{place}", "1", replace(PHOTO, sha256=f"{place}")) for place in range(500)]
    with ImageCache(path) as cache:
        cache.remember(rows)
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    path.write_bytes(content)
    with ImageCache(path) as cache:
        with pytest.warns(UserWarning, match="made again"):
            assert cache.facts(["7"]) == {}
        cache.remember(rows)
        assert cache.content("7") == rows[7][2]
