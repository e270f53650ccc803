from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kpipe.data import Manifest, from_csv, from_dataframe, from_folder, list_csv_files
from kpipe.errors import DataError

UNLISTED = "file without a row"


def _kinds(manifest: Manifest, but: str = "") -> dict[str, str]:
    return {
        Path(path).name: kind
        for path, kind in zip(manifest.problems["path"], manifest.problems["kind"], strict=True)
        if kind != but
    }


def test_a_folder_of_classes_is_read_whole(folder: Path) -> None:
    manifest = from_folder(folder)
    assert manifest.classes == ("cat", "dog", "owl")
    assert manifest.counts()[""].to_dict() == {"cat": 20, "dog": 10, "owl": 7}
    row = manifest.table.iloc[0]
    assert row["path"] == str(folder / "cat" / "00.png")
    assert (row["width"], row["height"]) == (40, 30)
    assert row["sha256"] == hashlib.sha256((folder / "cat" / "00.png").read_bytes()).hexdigest()
    assert manifest.problems.empty


def test_a_relative_root_gives_absolute_paths(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    pd.testing.assert_frame_equal(from_folder("photos").table, from_folder(folder).table)


def test_photos_deeper_in_a_class_folder_are_of_that_class(photo: Callable[..., Path]) -> None:
    for seed, name in enumerate(["a/1.png", "a/x/y/2.png", "b/1.png", "b/z/1.png"]):
        root = photo(name, seed=seed)
    manifest = from_folder(root.parents[2])
    assert list(manifest.table["label"]) == ["a", "a", "b", "b"]


def test_declared_splits_are_kept(photo: Callable[..., Path], tmp_path: Path) -> None:
    for seed, name in enumerate(
        f"{split}/{label}/{place}.png"
        for split in ("train", "Val", "TEST")
        for label in "ab"
        for place in range(2)
    ):
        photo(name, seed=seed)
    counts = from_folder(tmp_path / "photos").counts()
    assert counts.to_numpy().tolist() == [[2, 2, 2], [2, 2, 2]]
    assert list(counts.columns) == ["train", "validation", "test"]


def test_classes_called_train_and_test_are_classes(photo: Callable[..., Path]) -> None:
    for seed, name in enumerate(["train/1.png", "train/2.png", "test/1.png", "test/2.png"]):
        path = photo(name, seed=seed)
    assert from_folder(path.parents[1]).classes == ("test", "train")


def test_split_folders_beside_others_are_refused(photo: Callable[..., Path]) -> None:
    photo("extra/a/1.png")
    path = photo("train/a/1.png")
    with pytest.raises(DataError, match=r"others \['extra'\]"):
        from_folder(path.parents[2])


def _bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_every_kind_of_dirt_is_set_aside_by_name(
    folder: Path, photo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cat = folder / "cat"
    whole = photo("cat/whole.jpg", size=(64, 64)).read_bytes()
    (cat / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (cat / "empty.png").touch()
    (cat / "text.jpg").write_text("not a photo")
    (cat / "notes.txt").write_text("not a photo")
    (cat / "bomb.png").write_bytes(_bomb())
    (cat / ".hidden.png").write_bytes(whole)
    (cat / ".DS_Store").write_bytes(b"junk")
    (folder / "Thumbs.db").write_bytes(b"junk")
    (folder / "README.md").write_text("about")
    (folder / "lost.JPG").write_bytes(whole)
    (folder / "__MACOSX" / "cat").mkdir(parents=True)
    (folder / "__MACOSX" / "cat" / "._00.png").write_bytes(b"junk")
    (cat / "loop").symlink_to(folder, target_is_directory=True)
    (cat / "gone.png").symlink_to(folder / "nowhere.png")
    (cat / "itself.png").symlink_to(cat / "itself.png")
    (folder / "empty class").mkdir()
    os.mkfifo(cat / "pipe.png")
    (folder / "owl" / "locked").mkdir()
    scandir = os.scandir

    def refusing(path: str | Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    manifest = from_folder(folder, max_unreadable=0.2)
    assert manifest.problems["detail"].str.len().min() > 0
    assert "'empty class'" in set(manifest.problems["detail"])
    assert _kinds(manifest) == {
        "": "class without images",
        "cut.jpg": "truncated",
        "empty.png": "empty file",
        "text.jpg": "undecodable",
        "notes.txt": "not an image",
        "bomb.png": "too many pixels",
        ".hidden.png": "hidden",
        "README.md": "outside a class folder",
        "lost.JPG": "photo outside a class folder",
        "loop": "symlink loop",
        "gone.png": "missing file",
        "itself.png": "missing file",
        "pipe.png": "unreadable file",
        "locked": "unreadable directory",
    }
    assert len(manifest.table) == 38
    assert manifest.classes == ("cat", "dog", "owl")


def test_a_name_that_is_not_utf8_is_set_aside(folder: Path) -> None:
    os.rename(folder / "cat" / "00.png", os.fsencode(folder / "cat") + b"/caf\xe9.png")
    manifest = from_folder(folder)
    assert manifest.problems["path"].tolist() == [str(folder / "cat" / "caf") + "\\xe9.png"]
    assert len(manifest.table) == 36


def test_what_the_name_says_does_not_matter_but_a_lie_is_told(folder: Path) -> None:
    (folder / "cat" / "00.png").rename(folder / "cat" / "00.jpg")
    (folder / "cat" / "01.png").rename(folder / "cat" / "01")
    (folder / "cat" / "02.png").rename(folder / "cat" / "02.PNG")
    manifest = from_folder(folder)
    assert _kinds(manifest) == {"00.jpg": "wrong extension"}
    assert len(manifest.table) == 37


def test_size_is_that_of_the_upright_photo(photo: Callable[..., Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        path = photo(name, size=(40, 30), exif=exif)
    table = from_folder(path.parents[1]).table
    assert set(zip(table["width"], table["height"], strict=True)) == {(30, 40)}


def test_too_many_unreadable_files_are_an_error_that_names_them(folder: Path) -> None:
    (folder / "cat" / "00.png").write_bytes(b"")
    (folder / "dog" / "00.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert len(from_folder(folder, max_unreadable=2 / 37).problems) == 2
    with pytest.raises(DataError, match="2 of 37 photos") as caught:
        from_folder(folder, max_unreadable=0.05)
    assert "cat/00.png" in str(caught.value)
    assert "dog/00.png" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no images in"),
        (["a/1.png", "a/2.png"], "a single class in"),
        (["a/1.png", "a/2.png", "b/1.png", "c/1.png"], "one image only in class 'b', 'c'"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    names: list[str], message: str, photo: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for seed, name in enumerate(names):
        photo(name, seed=seed)
    with pytest.raises(DataError, match=message):
        from_folder(tmp_path / "photos")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        from_folder(tmp_path / "nowhere")


def test_nothing_is_refused_for_an_audit(folder: Path) -> None:
    for name in ("cat", "dog"):
        for path in (folder / name).iterdir():
            path.write_bytes(b"")
    for path in sorted((folder / "owl").iterdir())[1:]:
        path.unlink()
    manifest = from_folder(folder, max_unreadable=None)
    assert manifest.counts().to_dict() == {
        "train": {"owl": 0},
        "validation": {"owl": 0},
        "test": {"owl": 0},
        "": {"owl": 1},
    }
    assert (manifest.problems["kind"] == "empty file").sum() == 30


# Several roots


def test_class_folders_of_one_name_in_several_roots_are_one_class(
    photo: Callable[..., Path], tmp_path: Path
) -> None:
    names = ["one/cat/1.png", "one/cat/2.png", "two/cat/1.png", "two/dog/1.png", "two/dog/2.png"]
    for seed, name in enumerate(names):
        photo(name, seed=seed)
    roots = [tmp_path / "photos" / "one", str(tmp_path / "photos" / "two")]
    manifest = from_folder(roots)
    assert manifest.counts()[""].to_dict() == {"cat": 3, "dog": 2}
    assert manifest.problems.empty
    assert from_folder(roots[::-1]).digest == manifest.digest


def test_each_root_declares_its_own_splits(photo: Callable[..., Path], tmp_path: Path) -> None:
    names = ["one/train/a/1.png", "one/test/b/1.png", "two/a/1.png", "two/b/1.png"]
    for seed, name in enumerate(names):
        photo(name, seed=seed)
    roots = (tmp_path / "photos" / "one", tmp_path / "photos" / "two")
    table = from_folder(roots).table
    assert dict(zip(table["path"], table["split"], strict=True)) == {
        str(tmp_path / "photos" / name): split
        for name, split in zip(names, ["train", "test", "", ""], strict=True)
    }


def test_a_file_that_two_roots_list_is_kept_once_and_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    manifest = from_folder([folder, tmp_path / "link", folder])
    pd.testing.assert_frame_equal(manifest.table, from_folder(folder).table)
    told = manifest.problems
    assert set(told["kind"]) == {"listed twice"} and len(told) == 2 * 37
    assert told["path"].tolist()[0] == str(tmp_path / "link" / "cat" / "00.png")


def test_every_missing_root_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder \S*one, \S*two\n"):
        from_folder([tmp_path / "one", folder, tmp_path / "two"], max_unreadable=None)
    with pytest.raises(DataError, match="no source is given"):
        from_folder([])


def test_progress_counts_every_file_once(folder: Path) -> None:
    calls: list[tuple[int, int]] = []
    from_folder(folder, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 37) for done in range(1, 38)]


def _write_table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_gives_what_the_folder_gives(folder: Path) -> None:
    made = from_folder(folder)
    listed = [f"{row.path},{row.label}" for row in made.table.itertuples()]
    path = _write_table(folder.parent, "\n".join(["file,kind", *listed]))
    pd.testing.assert_frame_equal(from_csv(path, image="file", label="kind").table, made.table)


def test_relative_files_are_under_the_table_or_the_root(folder: Path, tmp_path: Path) -> None:
    rows = [f"{name}/0{place}.png,{name}" for name in ("cat", "dog") for place in range(3)]
    text = "\n".join(["file,kind", *rows])
    beside = from_csv(_write_table(folder, text), image="file", label="kind")
    rooted = from_csv(_write_table(tmp_path, text), image="file", label="kind", root=folder)
    pd.testing.assert_frame_equal(beside.table, rooted.table)


def test_cells_are_the_text_that_stands_there(folder: Path) -> None:
    rows = [f"cat/0{place}.png\t{name}" for place, name in enumerate(["NA", "NA", "007", "007"])]
    path = _write_table(folder, "\n".join(["file\tkind", *rows]), "labels.tsv")
    assert from_csv(path, image="file", label="kind").classes == ("007", "NA")


@pytest.mark.parametrize("keys", [(0, 1), (0.0, 1.0), ("0", "1.0"), (np.float32(0), np.int64(1))])
def test_declared_labels_are_compared_as_numbers(folder: Path, keys: tuple) -> None:
    values = ["0.0", "0.0", "1.0", "1", "0.3333333333333333", ""]
    rows = [f"cat/0{place}.png {value}" for place, value in enumerate(values)]
    path = _write_table(folder, "\n".join(rows))
    manifest = from_csv(
        path,
        image="file",
        label="defect",
        classes={keys[0]: "whole", keys[1]: "broken"},
        sep=" ",
        names=["file", "defect"],
    )
    assert list(manifest.table["label"]) == ["whole", "whole", "broken", "broken"]
    assert _kinds(manifest, UNLISTED) == {"04.png": "label not declared", "05.png": "no label"}


def test_numbers_in_a_dataframe_name_classes_by_value(folder: Path) -> None:
    df = pd.DataFrame(
        {"file": [f"cat/0{place}.png" for place in range(5)], "kind": [0, 0, 1, 1, None]}
    )
    manifest = from_dataframe(df, image="file", label="kind", root=folder)
    assert manifest.classes == ("0", "1")
    assert _kinds(manifest, UNLISTED) == {"04.png": "no label"}


def test_declared_labels_that_no_row_has_are_named(folder: Path) -> None:
    df = pd.DataFrame({"file": ["cat/00.png"], "kind": ["a"]})
    with pytest.raises(DataError, match="no row has the label 'b', 'c'"):
        from_dataframe(df, image="file", label="kind", root=folder, classes=dict.fromkeys("abc"))


def test_the_files_of_a_table_are_listed_unopened(folder: Path) -> None:
    other = folder.parent / "other.png"
    path = _write_table(folder, f"file,kind\ncat/gone.png,a\n,b\ncat/gone.png,b\n{other},c\n")
    assert list_csv_files(path, image="file") == [folder / "cat" / "gone.png", other]
    assert list_csv_files(path, image="file", root=folder / "x")[0].parent == folder / "x" / "cat"
    with pytest.raises(DataError, match="did you mean 'file'"):
        list_csv_files(path, image="files")


def test_every_missing_column_is_named(folder: Path) -> None:
    path = _write_table(folder, "file,kind\ncat/00.png,a\n")
    with pytest.raises(DataError, match="no column 'files', 'kinds'"):
        from_csv(path, image="files", label="kinds")


def test_two_spellings_of_one_declared_label_are_refused(folder: Path) -> None:
    df = pd.DataFrame({"file": ["cat/00.png"], "kind": [0]})
    with pytest.raises(DataError, match="two declared labels are the same"):
        from_dataframe(df, image="file", label="kind", root=folder, classes={0: "a", "0.0": "b"})


def test_a_missing_column_gets_the_nearest_name(folder: Path) -> None:
    path = _write_table(folder, "file,kind\ncat/00.png,a\n")
    with pytest.raises(DataError, match="did you mean 'kind'"):
        from_csv(path, image="file", label="kinds")


@pytest.mark.parametrize("text", ["", 'a,b\n"1,2\n3', "a,b\n1,2\n1,2,3,4\n"])
def test_what_is_no_table_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(DataError, match="cannot be read as a table"):
        from_csv(_write_table(folder, text), image="a", label="b")


def _codes(folder: Path, **how) -> Manifest:
    return from_csv(folder / "labels.csv", image="file", label="the kind", **how)


@pytest.mark.parametrize("sign", [";", "\t", "|", ","])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_separates_the_cells_shows_in_the_columns(
    folder: Path, sign: str, encoding: str
) -> None:
    rows = [f'cat/0{place}.png{sign}"a{sign} ü"' for place in range(2)]
    rows += [f"dog/0{place}.png{sign}b" for place in range(2)]
    text = "\r\n".join([f'file{sign}"the kind"', *rows])
    (folder / "labels.csv").write_bytes(text.encode(encoding))
    assert _codes(folder).classes == (f"a{sign} ü", "b")


def test_a_table_in_another_encoding_is_read_as_it_is_told(folder: Path) -> None:
    rows = [f"cat/0{place}.png;{name}" for place, name in enumerate(["ä", "ä", "b", "b"])]
    (folder / "labels.csv").write_bytes("\n".join(["file;the kind", *rows]).encode("cp1252"))
    assert _codes(folder, encoding="cp1252").classes == ("b", "ä")
    with pytest.raises(DataError, match="cannot be read as a table") as caught:
        _codes(folder)
    assert "encoding" in caught.value.fix


def test_several_tables_are_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    _write_table(folder, "file,kind\ncat/00.png,a\ncat/01.png,a\ndog/00.png,b\n")
    rows = f"kind;file;more\nb;{folder}/dog/01.png;x\na;{folder}/cat/00.png;y\n"
    _write_table(tmp_path / "b", rows)
    paths = [folder / "labels.csv", tmp_path / "b" / "labels.csv"]
    table = from_csv(paths, image="file", label="kind").table
    assert [str(Path(path).relative_to(folder)) for path in table["path"]] == [
        *("cat/00.png", "cat/01.png", "dog/00.png", "dog/01.png")
    ]
    assert table["label"].tolist() == ["a", "a", "b", "b"]
    assert table["more"].tolist() == ["", "", "", "x"]
    assert len(list_csv_files(paths, image="file")) == 4


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as a table"):
        from_csv(tmp_path / "nowhere.csv", image="a", label="b")


def test_a_name_with_an_escape_of_nothing_is_a_missing_file(folder: Path) -> None:
    files = [*sorted(map(str, folder.rglob("*.png"))), r"img\Udeadbeef.jpg"]
    labels = [Path(file).parent.name for file in files[:-1]]
    table = pd.DataFrame({"file": files, "label": [*labels, "cat"]})
    made = from_dataframe(table, image="file", label="label")
    assert made.problems["kind"].tolist() == ["missing file"]


def test_rows_without_a_file_and_rows_listed_twice_are_set_aside(folder: Path) -> None:
    files = ["cat/00.png", "cat/01.png", "cat/01.png", "cat/gone.png", None, "dog/00.png"]
    files += ["dog/01.png", "cat/00.png"]
    df = pd.DataFrame({"file": files, "kind": ["a", "a", "a", "a", "a", "b", "b", "b"]})
    manifest = from_dataframe(df, image="file", label="kind", root=folder, max_unreadable=0.2)
    assert list(manifest.table["label"]) == ["a", "a", "b", "b", "b"]
    assert _kinds(manifest, UNLISTED) == {
        "": "no file named",
        "01.png": "listed twice",
        "gone.png": "missing file",
    }


def test_a_split_column_declares_and_other_columns_travel(folder: Path) -> None:
    df = pd.DataFrame(
        {
            "file": [f"cat/0{place}.png" for place in range(4)],
            "kind": list("aabb"),
            "split": ["train", "Val", "", None],
            "patient": [7, None, "x", 1.5],
            "width": 9999,
        }
    )
    table = from_dataframe(df, image="file", label="kind", root=folder).table
    assert list(table["split"]) == ["train", "validation", "", ""]
    assert list(table["patient"]) == ["7", "", "x", "1.5"]
    assert set(table["width"]) == {40}
    with pytest.raises(DataError, match="'split' holds 'fold 1', 'fold 2'"):
        from_dataframe(
            df.assign(split=["fold 1", "fold 2"] * 2), image="file", label="kind", root=folder
        )


def test_a_manifest_table_reads_back_as_itself(folder: Path) -> None:
    made = from_folder(folder)
    again = from_dataframe(made.table, image="path", label="label")
    pd.testing.assert_frame_equal(again.table, made.table)


def test_a_row_that_declares_a_split_says_more_than_one_that_does_not(folder: Path) -> None:
    df = pd.DataFrame(
        {
            "file": ["cat/00.png", "cat/00.png", "cat/01.png", "cat/01.png", "dog/00.png"] * 2,
            "kind": ["a", "a", "a", "a", "b"] * 2,
            "split": ["", "test", "train", "test", ""] * 2,
        }
    )
    manifest = from_dataframe(df, image="file", label="kind", root=folder, max_unreadable=None)
    assert [(Path(row.path).name, row.split) for row in manifest.table.itertuples()] == [
        *(("00.png", "test"), ("01.png", "train"), ("01.png", "test"), ("00.png", ""))
    ]


# Names of files


def _only(folder: Path, name: str) -> Manifest:
    """What a table says that names one file so, beside others."""
    df = pd.DataFrame({"file": [name, "dog/00.png"], "kind": ["a", "b"]})
    return from_dataframe(df, image="file", label="kind", root=folder, max_unreadable=None)


COMPOSED, DECOMPOSED = "caf\u00e9 1.png", "cafe\u0301 1.png"


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("cat\\00.png", "cat/00.png"),
        (" cat/00.png ", "cat/00.png"),
        ("./dog/../cat//00.png", "cat/00.png"),
        ("CAT/00.PNG", "cat/00.png"),
        (f"cat/{COMPOSED}", f"cat/{DECOMPOSED}"),
        (f"cat\\{DECOMPOSED}", f"cat/{COMPOSED}"),
        (f"Cat/{COMPOSED.upper()}", f"cat/{DECOMPOSED}"),
    ],
)
def test_a_name_spelled_otherwise_finds_its_file(folder: Path, name: str, there: str) -> None:
    if not (folder / there).exists():
        (folder / "cat" / "01.png").rename(folder / there)
    manifest = _only(folder, name)
    assert manifest.table["path"][0] == str(folder / there)
    plain = os.path.normpath(name) == there
    assert _kinds(manifest, UNLISTED) == (
        {} if plain else {Path(there).name: "other spelling in the table"}
    )
    listed = _write_table(folder, f"file\n{name}\n")
    assert list_csv_files(listed, image="file", sep="\t") == [folder / there]


def test_a_name_is_that_of_the_file_so_spelled_where_there_is_one(folder: Path) -> None:
    for place, name in enumerate([COMPOSED, DECOMPOSED, "x\\y.png", "x/y.png"]):
        (folder / "cat" / name).parent.mkdir(exist_ok=True)
        (folder / "cat" / f"0{place}.png").rename(folder / "cat" / name)
    for name in (COMPOSED, DECOMPOSED, "x\\y.png", "x/y.png"):
        assert _only(folder, f"cat/{name}").table["path"][0] == str(folder / "cat" / name)


def test_a_name_that_several_files_are_spelled_like_is_of_none(folder: Path) -> None:
    (folder / "cat" / "00.png").rename(folder / "cat" / "A.png")
    (folder / "cat" / "01.png").rename(folder / "cat" / "a.PNG")
    manifest = _only(folder, "cat/a.png")
    assert _kinds(manifest, UNLISTED) == {"a.png": "missing file"}


@pytest.mark.parametrize(
    "name", ["C:\\photos\\cat\\00.png", "\\\\nas\\00.png", "cat/\0.png", "cat"]
)
def test_a_name_of_no_file_here_is_told(folder: Path, name: str) -> None:
    kinds = _kinds(_only(folder, name), UNLISTED)
    assert list(kinds.values()) == ["unreadable file" if name == "cat" else "missing file"]


# Files that no row names


def test_photos_without_a_row_are_told_where_rows_have_theirs(folder: Path) -> None:
    (folder / "cat" / "notes.txt").write_text("no photo")
    (folder / "cat" / ".hidden.png").write_bytes(b"")
    (folder / "cat" / "deep").mkdir()
    (folder / "cat" / "00.png").rename(folder / "cat" / "deep" / "00.png")
    rows = [f"cat/{place:02}.png,a" for place in range(3, 20)] + ["owl/00.png,b", "owl/01.png,b"]
    path = _write_table(folder, "\n".join(["file,kind", *rows]))
    beside = [f"cat/0{place}.png" for place in (1, 2)] + [
        f"owl/0{place}.png" for place in range(2, 7)
    ]
    below = ["cat/deep/00.png", *(f"dog/{place:02}.png" for place in range(10))]
    for root, expected in ((None, beside), (folder, [*beside, *below])):
        problems = from_csv(path, image="file", label="kind", root=root).problems
        assert set(problems["kind"]) == {UNLISTED}
        assert problems["path"].tolist() == sorted(str(folder / name) for name in expected)


def test_a_listed_file_is_not_without_a_row_by_another_way(folder: Path) -> None:
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "kitten").symlink_to(folder / "cat", target_is_directory=True)
    rows = [f"kitten/{place:02}.png,a" for place in range(20)]
    rows += [f"dog/{place:02}.png,b" for place in range(10)]
    path = _write_table(folder, "\n".join(["file,kind", *rows]))
    problems = from_csv(path, image="file", label="kind", root=folder).problems
    assert [Path(name).parent.name for name in problems["path"]] == ["owl"] * 7
