from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kpipe import Pipeline
from kpipe.core.digests import Digests, combined
from kpipe.core.executor import LocalExecutor
from kpipe.core.journal import Journal, read_journal
from kpipe.core.runner import plan, run
from kpipe.core.stage import Context, Stage
from kpipe.data import SPLITS, Manifest, problem_table
from kpipe.errors import DataError
from kpipe.report import write_report
from kpipe.stages import Data
from kpipe.stages.data import _record
from tests.walking import COUNTS, draw


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return draw(tmp_path / "photos")


@pytest.fixture
def table(source: Path) -> Path:
    """A CSV of the photos: 0, 1, and a label that nobody wants."""
    codes = {"blue": "0", "green": "1.0", "red": "undecided"}
    rows = [
        f"{path.relative_to(source).as_posix()};{codes[path.parent.name]}"
        for path in sorted(source.rglob("*.png"))
    ]
    (source / "table.csv").write_text("\n".join(["file;code", *rows]))
    return source / "table.csv"


def digest(stage: Data) -> list[str]:
    cache = Digests(Path(stage.paths[0]).parent / "digests.sqlite")
    found = [combined(cache.files(path)) for path in stage.sources()]
    cache.close()
    return found


def notes(events) -> str:
    return "\n".join(event["text"] for event in events if event["event"] == "note")


def test_a_folder_is_split_and_decoded(perform, source: Path) -> None:
    folder, events = perform(Data(source, image_size=32, split=(0.5, 0.25, 0.25)))
    manifest = Manifest.load(folder)
    assert manifest.classes == ("blue", "green", "red")
    counts = manifest.counts()
    assert counts.sum(axis=1).to_dict() == {name: total for name, (total, _) in COUNTS.items()}
    assert (counts > 0).all(axis=None)
    images = np.load(folder / "images.npy")
    assert images.shape == (60, 32, 32, 3)
    # A photo of 48 x 40 keeps its aspect: the middle 40 columns.
    row = manifest.table.iloc[7]
    middle = Image.open(row["path"]).crop((4, 0, 44, 40))
    extent = Image.Transform.EXTENT
    expected = middle.transform((32, 32), extent, (0, 0, 40, 40), Image.Resampling.BILINEAR)
    assert np.abs(images[7].astype(int) - np.asarray(expected, int)).max() <= 1
    rows = (f"{name} {'/'.join(map(str, counts.loc[name]))}" for name in manifest.classes)
    assert f"60 photos; train/validation/test: {', '.join(rows)}" in notes(events)
    assert json.loads((folder / "data.json").read_text()) == {
        "image_size": 32,
        "classes": ["blue", "green", "red"],
        "background": "white",
    }


def test_the_split_is_a_function_of_the_seed(perform, source: Path, tmp_path: Path) -> None:
    stage = Data(source, image_size=16)
    splits = [
        Manifest.load(perform(stage, seed, tmp_path / f"{seed}-{turn}")[0]).digest
        for seed, turn in ((1, 0), (1, 1), (2, 0))
    ]
    assert splits[0] == splits[1] != splits[2]


def test_a_table_maps_its_labels_and_tells_what_it_leaves_out(perform, table: Path) -> None:
    stage = Data(
        table,
        image_size=16,
        image="file",
        label="code",
        classes={"0.0": "sound", "1": "broken"},
        csv={"sep": ";"},
    )
    assert stage.validation_errors() == []
    folder, events = perform(stage)
    manifest = Manifest.load(folder)
    assert manifest.classes == ("broken", "sound")
    assert manifest.table["label"].value_counts().to_dict() == {"sound": 24, "broken": 20}
    assert "16 x label not declared" in notes(events)
    assert (manifest.problems["kind"] == "label not declared").sum() == 16


def test_a_table_without_declared_classes_takes_every_label(perform, table: Path) -> None:
    stage = Data(table, image_size=16, image="file", label="code", csv={"sep": ";"})
    assert Manifest.load(perform(stage)[0]).classes == ("0", "1.0", "undecided")


def test_a_table_may_start_its_paths_elsewhere(perform, table: Path, tmp_path: Path) -> None:
    moved = shutil.move(table, tmp_path / "elsewhere.csv")
    options = {"image": "file", "label": "code", "csv": {"sep": ";"}}
    with pytest.raises(DataError, match="60 of 60 photos"):
        perform(Data(moved, image_size=16, **options))
    stage = Data(moved, image_size=16, root=table.parent, **options)
    assert len(Manifest.load(perform(stage)[0]).table) == 60


@pytest.mark.parametrize("change", ["content", "new", "gone", "renamed"])
def test_the_digest_of_a_folder_changes_with_its_photos(source: Path, change: str) -> None:
    stage = Data(source)
    before, photo = digest(stage), source / "red" / "00.png"
    assert digest(stage) == before
    other = source / "blue" / "00.png"
    changes = {
        "content": lambda: photo.write_bytes(other.read_bytes()),
        "new": lambda: shutil.copy(other, source / "red" / "new.png"),
        "gone": photo.unlink,
        "renamed": lambda: photo.rename(source / "green" / "other.png"),
    }
    changes[change]()
    assert digest(stage) != before


def test_the_digest_of_a_table_changes_with_the_photos_that_it_lists(table: Path) -> None:
    stage = Data(table, image="file", label="code", csv={"sep": ";"})
    before = digest(stage)
    assert len(before) == 61
    (table.parent / "unlisted.png").write_bytes(b"not in the table")
    assert digest(stage) == before
    photo = table.parent / "red" / "00.png"
    photo.write_bytes((table.parent / "blue" / "00.png").read_bytes())
    assert digest(stage) != before


def test_the_digest_of_a_table_changes_with_its_rows(table: Path) -> None:
    stage = Data(table, image="file", label="code", csv={"sep": ";"})
    before = digest(stage)
    table.write_text(table.read_text().replace("undecided", "2"))
    assert digest(stage) != before


def test_several_folders_are_one_source(perform, source: Path, tmp_path: Path) -> None:
    other = draw(tmp_path / "other", {"blue": 0, "green": 0, "red": 4})
    for path in other.rglob("*.png"):
        Image.open(path).rotate(90).save(path)
    stage = Data((source, other), image_size=16)
    assert stage.source == (str(source), str(other))
    assert len(Manifest.load(perform(stage)[0]).table) == 64
    before = digest(stage)
    assert len(before) == 2
    (other / "red" / "00.png").unlink()
    assert digest(stage)[0] == before[0] and digest(stage)[1] != before[1]


def test_several_tables_are_one_source(perform, table: Path) -> None:
    head, *rows = table.read_text().splitlines()
    parts = [table.parent / "one.csv", table.parent / "two.csv"]
    for path, part in zip(parts, (rows[::2], rows[1::2]), strict=True):
        path.write_text("\n".join([head, *part]))
    options = {"image_size": 16, "image": "file", "label": "code"}
    stage = Data(parts, **options)
    made = Manifest.load(perform(stage)[0])
    assert len(digest(stage)) == 2 + 60
    assert (
        made.digest == Manifest.load(perform(Data(table, **options), into=table.parent)[0]).digest
    )


def test_one_source_in_a_list_is_that_source(source: Path) -> None:
    assert Data([source]) == Data(str(source)) == Data(source)
    assert Data(source).configuration()["source"] == str(source)


def test_a_group_is_not_torn(perform, table: Path) -> None:
    head, *rows = table.read_text().splitlines()
    rows = [f"{row};{number // 4}" for number, row in enumerate(sorted(rows, key=hash))]
    table.write_text("\n".join([f"{head};session", *rows]))
    stage = Data(table, image_size=16, image="file", label="code", group="session")
    made = Manifest.load(perform(stage)[0]).table
    assert (made.groupby("session")["split"].nunique() == 1).all()


def test_a_group_needs_a_table(source: Path) -> None:
    assert "use a CSV" in Data(source, group="session").validation_errors()[0]


def test_a_background_is_under_transparent_pixels(perform, source: Path) -> None:
    for path in source.rglob("*.png"):
        image = Image.open(path).convert("RGBA")
        image.paste((9, 9, 9, 0), (0, 0, 12, 40))
        image.save(path)
    folder, events = perform(Data(source, image_size=16, background="#102030"))
    images = np.load(folder / "images.npy")
    # Of 48 columns the middle 40 are seen.
    assert (images[:, :, :3] == [0x10, 0x20, 0x30]).all()
    assert (images[:, :, 4:] != [0x10, 0x20, 0x30]).any(axis=(1, 2, 3)).all()
    assert json.loads((folder / "data.json").read_text())["background"] == "#102030"
    assert "60 x converted" in notes(events) and "alpha, over #102030" in notes(events)


def test_a_background_that_is_no_color_is_refused_before_anything_runs(source: Path) -> None:
    (problem,) = Data(source, background="whit").validation_errors()
    assert "background='whit'" in problem and "did you mean 'white'?" in problem


# What an earlier run decided


def test_photos_of_an_earlier_run_keep_their_split(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    earlier = run(Pipeline("p", [Data(source, image_size=16)], seed=1), out).folder
    before = pd.read_csv(earlier / "manifest.csv", index_col="sha256")["split"]
    for number, path in enumerate(sorted((source / "red").iterdir())):
        Image.open(path).rotate(90).save(path.with_name(f"new {number}.png"))
    stage = Data(source, image_size=16, previous=earlier)
    assert stage.sources() == (source, earlier / "manifest.csv")
    later = run(Pipeline("p", [stage], seed=2), out).folder
    after = pd.read_csv(later / "manifest.csv", index_col="sha256")["split"]
    assert len(after) == 76
    assert after[before.index].tolist() == before.tolist()


def test_an_earlier_run_that_is_not_there_is_named(source: Path, tmp_path: Path) -> None:
    pipeline = Pipeline("p", [Data(source, image_size=16, previous="nowhere")])
    with pytest.raises(DataError, match="Data reads nowhere, which does not exist"):
        run(pipeline, tmp_path / "out")


def test_an_earlier_manifest_that_cannot_be_used_is_refused_by_the_plan(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "manifest.csv").write_text("sha256,label\nab,red\n")
    pipeline = Pipeline("p", [Data(source, image_size=16, previous=tmp_path / "manifest.csv")])
    with pytest.raises(DataError, match="the table has no column 'split'"):
        plan(pipeline, tmp_path / "out")


@pytest.mark.parametrize(
    "fields",
    [
        {"label": "code", "group": "sesion"},
        {"label": "cod", "classes": {"0": "sound"}},
        {"label": "code", "image": "fiel"},
    ],
)
def test_a_column_that_a_table_lacks_is_refused_by_the_plan(
    fields: dict, table: Path, tmp_path: Path
) -> None:
    stage = Data(table, image_size=16, **{"image": "file", **fields})
    with pytest.raises(DataError, match="the table has no column"):
        plan(Pipeline("p", [stage]), tmp_path / "out")


# Dirt


def _smooth(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def _spoil(source: Path) -> dict[str, set[str]]:
    """Put every kind of dirt into the folder of the red photos; returns name: kinds."""
    red, exif = source / "red", Image.Exif()
    exif[0x0112] = 6
    _smooth(0).save(red / "whole.jpg")
    whole = (red / "whole.jpg").read_bytes()
    (red / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (red / "empty.jpg").touch()
    (red / "bomb.png").write_bytes(_bomb())
    (red / "z copy.jpg").write_bytes(whole)
    (source / "blue" / "as blue.jpg").write_bytes(whole)
    _smooth(0).save(red / "again.jpg", quality=60)
    _smooth(1).save(red / "lie.jpg", "PNG")
    _smooth(2).convert("CMYK").save(red / "cmyk.jpg")
    deep = np.random.default_rng(3).integers(0, 2**16, (40, 48)).astype(np.uint16)
    Image.fromarray(deep).save(red / "deep.png")
    _smooth(4).save(red / "turned.jpg", exif=exif)
    _smooth(5).quantize(16).save(red / "palette.png", transparency=bytes(range(16)))
    _smooth(6).save(red / "moving.gif", save_all=True, append_images=[_smooth(7)])
    _smooth(8).save(red / "a name é 犬.jpg")
    Image.new("RGB", (48, 40), (99, 99, 99)).save(red / "flat.png")
    (red / "loop").symlink_to(source, target_is_directory=True)
    (red / "locked").mkdir()
    os.rename(red / "00.png", os.fsencode(red) + b"/caf\xe9.png")
    return {
        "cut.jpg": {"truncated"},
        "empty.jpg": {"empty file"},
        "bomb.png": {"too many pixels"},
        "z copy.jpg": {"exact duplicate", "same photo, two labels"},
        "lie.jpg": {"wrong extension"},
        "cmyk.jpg": {"converted"},
        "deep.png": {"converted"},
        "turned.jpg": {"turned upright"},
        "palette.png": {"converted"},
        "moving.gif": {"converted", "first frame"},
        "flat.png": {"constant image"},
        "loop": {"symlink loop"},
        "locked": {"unreadable directory"},
        "caf\\xe9.png": {"unreadable file"},
    }


def test_a_run_over_every_kind_of_dirt_completes_and_names_each(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _spoil(source)
    scandir = os.scandir

    def refusing(path: str | Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    # Who runs the tests may be allowed everything.
    monkeypatch.setattr(os, "scandir", refusing)
    stage = Data(source, image_size=16, max_unreadable=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run(Pipeline("dirty", [stage], seed=1), tmp_path / "out")
    events = read_journal(result.folder / "journal.jsonl")
    (made,) = (e["folder"] for e in events if e["event"] == "stage_finished")
    manifest = Manifest.load(result.folder / made)
    found = manifest.problems.groupby(manifest.problems["path"].map(os.path.basename))["kind"]
    found = found.agg(set).to_dict()
    assert {name: found.get(name) for name in expected} == expected
    assert set(manifest.problems["kind"]) >= {"near duplicate", "same photo, two labels"}
    assert not found.keys() & {"a name é 犬.jpg", "01.png"}
    assert "a name é 犬.jpg" in set(manifest.table["path"].map(os.path.basename))
    images = np.load(result.folder / made / "images.npy")
    assert len(images) == len(manifest.table) == 59 + 12
    for kind in set().union(*expected.values()):
        assert f" x {kind}: " in notes(events)
    page = write_report(result.folder).read_text(encoding="utf-8")
    for name in expected:
        assert name in page
    assert (tmp_path / "out" / ".cache" / "shared" / "photos.sqlite").exists()


def test_copies_and_look_alikes_stay_in_one_split(perform, source: Path) -> None:
    for number in range(12):
        _smooth(number).save(source / "red" / f"{number} first.jpg", quality=95)
        _smooth(number).save(source / "red" / f"{number} again.jpg", quality=60)
        shutil.copy(source / "red" / f"{number} first.jpg", source / "red" / f"{number} copy.jpg")
    table = Manifest.load(perform(Data(source, image_size=16))[0]).table
    numbers = table["path"].map(os.path.basename).str.extract(r"^(\d+) ", expand=False)
    assert (table.groupby(numbers)["split"].nunique() == 1).all()
    assert set(table["split"][numbers.notna()]) == set(SPLITS)


def test_of_many_problems_a_few_are_told_and_all_are_kept(perform, source: Path) -> None:
    for number in range(5):
        (source / "red" / f"{number}.jpg").touch()
    folder, events = perform(Data(source, image_size=16, max_unreadable=0.2))
    (told,) = (line for line in notes(events).splitlines() if "empty file" in line)
    assert told.startswith("5 x empty file: ") and told.endswith(", and 2 more")
    assert (Manifest.load(folder).problems["kind"] == "empty file").sum() == 5


def test_what_photos_hold_is_remembered_between_runs(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kpipe.data.file_status._UNSETTLED_NS", -1)
    monkeypatch.setattr("kpipe.core.digests._UNSETTLED_NS", -1)
    (tmp_path / "shared").mkdir()
    digests = []
    for turn in range(2):
        folder = tmp_path / str(turn)
        folder.mkdir()
        journal = Journal(tmp_path / "journal.jsonl")
        Data(source, image_size=16).run(Context(folder, {}, 3, journal, tmp_path / "shared"))
        digests.append(Manifest.load(folder).table)
        monkeypatch.setattr("kpipe.data.image_info.read_photo", None)
    pd.testing.assert_frame_equal(*digests)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how often each file is hashed; files count as settled."""
    monkeypatch.setattr("kpipe.data.file_status._UNSETTLED_NS", -1)
    monkeypatch.setattr("kpipe.core.digests._UNSETTLED_NS", -1)
    counts, real = Counter[str](), hashlib.file_digest

    def counted(file: Any, *args: Any) -> Any:
        counts[os.fspath(file.name)] += 1
        return real(file, *args)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return counts


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_each_photo_is_hashed_once_in_a_run(
    kind: str, source: Path, tmp_path: Path, hashed: Counter[str]
) -> None:
    photos = sorted(map(str, source.rglob("*.png")))
    stage = Data(source, image_size=16)
    if kind == "table":
        rows = [f"{path},{Path(path).parent.name}" for path in photos]
        (tmp_path / "photos.csv").write_text("\n".join(["file,color", *rows]))
        stage = Data(tmp_path / "photos.csv", image_size=16, image="file", label="color")
    run(Pipeline("p", [stage], seed=3), tmp_path / "out")
    assert {path: hashed[path] for path in photos} == dict.fromkeys(photos, 1)
    run(Pipeline("p", [stage], seed=4), tmp_path / "out")
    assert {path: hashed[path] for path in photos} == dict.fromkeys(photos, 1)


def test_a_photo_changed_between_its_key_and_the_scan_is_read_again_by_the_next_run(
    source: Path, tmp_path: Path
) -> None:
    changed = source / "red" / "00.png"

    class Change(LocalExecutor):
        def execute(self, stage: Stage, context: Context) -> None:
            changed.write_bytes((source / "red" / "01.png").read_bytes())
            super().execute(stage, context)

    pipeline = Pipeline("p", [Data(source, image_size=16)])
    with pytest.raises(DataError, match=r"red/00\.png was changed"):
        run(pipeline, tmp_path / "out", executor=Change())
    assert not list((tmp_path / "out" / ".cache").glob("*/manifest.csv"))
    table = pd.read_csv(run(pipeline, tmp_path / "out").folder / "manifest.csv")
    (digest,) = table["sha256"][table["path"] == str(changed)]
    assert digest == hashlib.sha256(changed.read_bytes()).hexdigest()


def test_a_photo_that_appears_for_the_rows_of_a_table_discards_the_result(
    table: Path, tmp_path: Path
) -> None:
    late = table.parent / "blue" / "00.png"
    content = late.read_bytes()
    late.unlink()

    class Appear(LocalExecutor):
        def execute(self, stage: Stage, context: Context) -> None:
            late.write_bytes(content)
            super().execute(stage, context)

    columns = {"image": "file", "label": "code", "classes": {"0": "a", "1": "b"}}
    pipeline = Pipeline("p", [Data(table, image_size=16, csv={"sep": ";"}, **columns)])
    with pytest.raises(DataError, match=r"blue/00\.png was added"):
        run(pipeline, tmp_path / "out", executor=Appear())


def test_of_many_classes_the_note_names_the_smallest(tmp_path: Path) -> None:
    rows = [
        (f"/{label}-{place}", f"class {label:02}", SPLITS[place % 3], 1, 1, f"{label}-{place}")
        for label in range(50)
        for place in range(3 if label == 17 else 6)
    ]
    table = pd.DataFrame(rows, columns=["path", "label", "split", "width", "height", "sha256"])
    manifest = Manifest(table, tuple(sorted(set(table["label"]))), problem_table())
    context = Context(tmp_path, {}, 0, Journal(tmp_path / "journal.jsonl"))
    _record(manifest, context)
    told = notes(read_journal(tmp_path / "journal.jsonl"))
    assert told.startswith("297 photos; train/validation/test: 99/99/99 of 50 classes, ")
    assert "the smallest: class 17 1/1/1, class 00 2/2/2, " in told and told.count("2/2/2") == 9


@pytest.fixture
def lacking(source: Path) -> Path:
    """A folder with train and test, of which the last lacks the class red; and a table of it."""
    root = source.parent / "lacking"
    rows = ["file;of;split"]
    for place, path in enumerate(sorted(source.rglob("*.png"))):
        name = path.parent.name
        split = "train" if name == "red" or place % 4 else "test"
        target = root / split / name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        rows.append(f"{target.relative_to(root).as_posix()};{name};{split}")
    (source.parent / "lacking.csv").write_text("\n".join(rows))
    return root


@pytest.mark.slow
def test_every_way_on_from_a_declared_split_that_lacks_a_class_works(
    perform, lacking: Path
) -> None:
    table = {"source": lacking.with_suffix(".csv"), "image": "file", "label": "of"}
    table["root"] = lacking
    for stage in (Data(lacking, 16), Data(**table, image_size=16)):
        with pytest.raises(DataError, match="a declared split lacks a class") as caught:
            perform(stage)
        assert caught.value.received.startswith("'red': train ")
        assert 'Data(("photos/train", "photos/test"))' in caught.value.fix
        assert 'csv={"usecols": ["image", "label"]}' in caught.value.fix
    for stage in (
        Data((lacking / "train", lacking / "test"), 16),
        Data(**table, image_size=16, csv={"usecols": ["file", "of"]}),
    ):
        counts = Manifest.load(perform(stage)[0]).counts()
        assert counts.sum(axis=1).to_dict() == {name: total for name, (total, _) in COUNTS.items()}
        assert (counts > 0).all(axis=None)
    # The classes left out, or photos added.
    codes = {"blue": "blue", "green": "green"}
    left, _ = perform(Data(**table, image_size=16, classes=codes))
    assert Manifest.load(left).classes == ("blue", "green")
    (lacking / "test" / "red").mkdir()
    moved = sorted((lacking / "train" / "red").iterdir())[0]
    moved.rename(lacking / "test" / "red" / moved.name)
    added, _ = perform(Data(lacking, 16))
    assert Manifest.load(added).counts().loc["red", "test"] == 1
