"""What an audit finds among drawn photos: all that was planted, by its kind, and nothing else."""

from __future__ import annotations

import dataclasses
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from kpipe.data import audit, from_dataframe, from_folder

CLASSES = ("boat", "house", "tree")


def drawn(seed: int, width: int = 96, height: int = 80) -> Image.Image:
    """A scene of its own: color blobs of many sizes."""
    generator = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize(
                (width, height), Image.Resampling.BICUBIC
            ),
            float,
        )
        for side in (3, 5, 9, 17)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve a class."""
    root = tmp_path_factory.mktemp("scenes")
    for number, name in enumerate(CLASSES):
        (root / name).mkdir()
        for place in range(12):
            drawn(100 * number + place).save(root / name / f"{place:02}.jpg", quality=92)
    return root


@pytest.fixture
def photos(scenes: Path, tmp_path: Path) -> Path:
    """The scenes, to plant dirt among."""
    return shutil.copytree(scenes, tmp_path / "photos")


def found(root: Path) -> set[tuple[str, str]]:
    problems = audit(from_folder(root, max_unreadable=None)).problems
    return {(Path(row.path).name, row.kind) for row in problems.itertuples()}


def test_clean_photos_have_no_problem(photos: Path) -> None:
    assert found(photos) == set()


def _copy(root: Path) -> None:
    shutil.copy(root / "boat/03.jpg", root / "boat/99.jpg")


def _other_label(root: Path) -> None:
    shutil.copy(root / "boat/03.jpg", root / "tree/99.jpg")


def _again(change: Callable[[Image.Image], Image.Image], **options: object):
    def plant(root: Path) -> None:
        change(Image.open(root / "boat/03.jpg")).save(root / "boat/99.jpg", **options)

    return plant


def _near_other_label(root: Path) -> None:
    Image.open(root / "boat/03.jpg").save(root / "tree/99.jpg", quality=50)


def _truncated(root: Path) -> None:
    (root / "boat/99.jpg").write_bytes((root / "boat/03.jpg").read_bytes()[:-300])


def _text(root: Path) -> None:
    (root / "boat/99.jpg").write_text("<html>not found</html>")


def _bomb(root: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))
    (root / "boat/99.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))


def _liar(root: Path) -> None:
    drawn(7777).save(root / "boat/99.jpg", "PNG")


def _turned_by_exif(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.open(root / "boat/03.jpg").transpose(Image.Transpose.ROTATE_90)
    lying.save(root / "boat/99.jpg", quality=92, exif=exif)


def _spelling(root: Path) -> None:
    (root / "BOAT").mkdir()
    for place in range(3):
        shutil.move(root / f"boat/{place:02}.jpg", root / f"BOAT/{place:02}.jpg")


def _few(root: Path) -> None:
    (root / "lamp").mkdir()
    for place in range(4):
        drawn(900 + place).save(root / f"lamp/{place}.jpg")


TWO = {("03.jpg", "same photo, two labels"), ("99.jpg", "same photo, two labels")}
NEAR = {("99.jpg", "near duplicate")}
PLANTED = {
    "copy": (_copy, {("99.jpg", "exact duplicate")}),
    "other label": (_other_label, TWO),
    "near, other label": (_near_other_label, TWO),
    "quality": (_again(lambda image: image, quality=40), NEAR),
    "half": (_again(lambda image: image.resize((48, 40)), quality=92), NEAR),
    "double": (_again(lambda image: image.resize((192, 160)), quality=92), NEAR),
    "brighter": (_again(lambda image: ImageEnhance.Brightness(image).enhance(1.1)), NEAR),
    "grey": (_again(lambda image: image.convert("L")), NEAR),
    "turned by EXIF": (_turned_by_exif, NEAR),
    "truncated": (_truncated, {("99.jpg", "truncated")}),
    "text": (_text, {("99.jpg", "undecodable")}),
    "empty": (lambda root: (root / "boat/99.jpg").touch(), {("99.jpg", "empty file")}),
    "bomb": (_bomb, {("99.png", "too many pixels")}),
    "liar": (_liar, {("99.jpg", "wrong extension")}),
    "flat": (
        lambda root: Image.new("RGB", (96, 80), "navy").save(root / "boat/99.png"),
        {("99.png", "constant image")},
    ),
    "tiny": (
        lambda root: drawn(555, 9, 8).save(root / "boat/99.png"),
        {("99.png", "tiny image")},
    ),
    "strip": (
        lambda root: drawn(556, 1800, 60).save(root / "boat/99.png"),
        {("99.png", "absurd dimensions")},
    ),
    "spelling": (_spelling, {("", "label spelling")}),
    "few": (_few, {("", "class too small")}),
}


@pytest.mark.parametrize(("plant", "expected"), PLANTED.values(), ids=PLANTED)
def test_what_is_planted_is_found_and_nothing_else(
    photos: Path, plant: Callable[[Path], None], expected: set[tuple[str, str]]
) -> None:
    plant(photos)
    assert found(photos) == expected


def test_copies_across_declared_splits_are_told_and_left_out(tmp_path: Path) -> None:
    for place, (split, label) in enumerate((s, c) for s in ("train", "test") for c in CLASSES):
        folder = tmp_path / split / label
        folder.mkdir(parents=True)
        for number in range(10):
            drawn(100 * place + number).save(folder / f"{number}.jpg")
    shutil.copy(tmp_path / "test/boat/0.jpg", tmp_path / "train/boat/leak.jpg")
    Image.open(tmp_path / "test/boat/1.jpg").save(tmp_path / "train/boat/near.jpg", quality=60)
    told = audit(from_folder(tmp_path, max_unreadable=None))
    crossing = told.problems[told.problems["kind"] == "duplicates cross splits"]
    assert {Path(path).name for path in crossing["path"]} == {"leak.jpg", "near.jpg"}
    left = {Path(path).relative_to(tmp_path).as_posix() for path in told.cleaned()["path"]}
    assert "test/boat/0.jpg" in left and "train/boat/leak.jpg" not in left
    assert len(left) == 60


def test_a_declared_split_that_lacks_a_class_is_named(photos: Path) -> None:
    rows = [(path, path.parent.name, "train") for path in sorted(photos.rglob("*.jpg"))]
    table = pd.DataFrame(rows, columns=["file", "of", "split"])
    table.loc[[0, 12], "split"] = "test"

    def named(table: pd.DataFrame) -> list[str]:
        problems = audit(from_dataframe(table, image="file", label="of")).problems
        return problems["detail"][problems["kind"] == "split without a class"].tolist()

    assert named(table) == ["'tree': no photo in test"]
    assert named(table.drop(columns="split")) == []
    table.loc[30, "split"] = ""  # `split` may put it into test
    assert named(table) == []


def test_what_is_cleaned_is_listed_and_adds_up(photos: Path) -> None:
    for plant in (_copy, _spelling):
        plant(photos)
    shutil.copy(photos / "house/00.jpg", photos / "tree/98.jpg")
    (photos / "tree/97.jpg").touch()
    told = audit(from_folder(photos, max_unreadable=None))
    changes = dict(told.changes.itertuples(index=False))
    by_name = {str(Path(path).relative_to(photos)): change for path, change in changes.items()}
    assert by_name == {
        "BOAT/00.jpg": "label 'BOAT' becomes 'boat'",
        "BOAT/01.jpg": "label 'BOAT' becomes 'boat'",
        "BOAT/02.jpg": "label 'BOAT' becomes 'boat'",
        "boat/99.jpg": "left out: a copy within its label",
        "house/00.jpg": "left out: the same photo has another label",
        "tree/97.jpg": "left out: empty file",
        "tree/98.jpg": "left out: the same photo has another label",
    }
    cleaned = told.cleaned()
    assert cleaned["label"].value_counts().to_dict() == {"boat": 12, "house": 11, "tree": 12}
    again = from_dataframe(cleaned[["path", "label"]], image="path", label="label")
    # What was left out still lies there.
    assert set(audit(again).problems["kind"]) == {"file without a row"}


def test_figures_are_those_of_the_photos(photos: Path) -> None:
    told = audit(from_folder(photos))
    pixels = np.stack([np.asarray(Image.open(path), float) for path in photos.rglob("*.jpg")])
    assert told.photos == 36 and told.imbalance == 1
    assert told.statistics["width"] == {"minimum": 96, "median": 96, "maximum": 96}
    for place, color in enumerate(("red", "green", "blue")):
        mean, deviation = pixels[..., place].mean(), pixels[..., place].std()
        assert told.statistics[color]["mean"] == pytest.approx(mean, abs=0.01)
        assert told.statistics[color]["deviation"] == pytest.approx(deviation, abs=0.01)
    assert told.statistics["format"] == {"JPEG": 36}
    assert told.classes["photos"].to_dict() == dict.fromkeys(CLASSES, 12)


def test_nothing_depends_on_the_order_of_the_rows(photos: Path) -> None:
    for plant in (_copy, _near_other_label, _spelling):
        plant(photos)
    table = from_folder(photos, max_unreadable=None).table[["path", "label"]]
    one = from_dataframe(table, image="path", label="label")
    other = from_dataframe(table.iloc[::-1], image="path", label="label")
    kinds = [audit(manifest).problems["kind"].value_counts().to_dict() for manifest in (one, other)]
    assert kinds[0] == kinds[1] != {}
    assert dict(zip(one.table["path"], one.table["similar"], strict=True)) == dict(
        zip(other.table["path"], other.table["similar"], strict=True)
    )


def test_photos_that_went_since_are_told_and_the_rest_is_audited(photos: Path) -> None:
    _near_other_label(photos)
    manifest = from_folder(photos)
    (photos / "boat/03.jpg").unlink()
    (photos / "house/00.jpg").write_bytes(b"")
    told = audit(manifest)
    found = {(Path(row.path).name, row.kind) for row in told.problems.itertuples()}
    assert found == {("03.jpg", "missing file"), ("00.jpg", "empty file")}
    assert told.photos == 35 and len(told.cleaned()) == 35
    assert set(told.changes["change"]) == {"left out: missing file", "left out: empty file"}


def test_a_table_made_elsewhere_is_audited_as_one_of_a_scan(photos: Path) -> None:
    for plant in (_copy, _near_other_label, _liar):
        plant(photos)
    manifest = from_folder(photos)
    bare = dataclasses.replace(
        manifest,
        table=manifest.table.drop(columns=["format", "mode", "orientation", "similar"]),
        problems=manifest.problems[:0],
    )
    order = ["path", "kind", "detail"]
    one, other = (audit(each).problems.sort_values(order) for each in (manifest, bare))
    assert one.to_numpy().tolist() == other.to_numpy().tolist() and len(one) == 3


def test_values_of_12_bits_in_files_of_16_are_named(tmp_path: Path) -> None:
    for label, top in (("deep", 2**12), ("full", 2**16)):
        for name in ("a", "b"):
            (tmp_path / label / name).mkdir(parents=True)
            for place in range(2):
                generator = np.random.default_rng([place, ord(name)])
                pixels = generator.integers(0, top, (40, 40), np.uint16)
                Image.fromarray(pixels).save(tmp_path / label / name / f"{place}.png")
    kinds = {
        label: set(audit(from_folder(tmp_path / label)).problems["kind"])
        for label in ("deep", "full")
    }
    assert "unused range" in kinds["deep"]
    assert "unused range" not in kinds["full"]


@pytest.mark.parametrize("folder", ["data", "labels", "Images"])
def test_folders_one_level_too_high_and_joined_labels_are_named(photos: Path, folder: str) -> None:
    names = sorted(path.name for path in photos.iterdir())
    shutil.copytree(photos / names[0], photos / f"{names[0]}|{names[1]}")
    (photos / names[2]).rename(photos / folder)
    problems = audit(from_folder(photos)).problems.set_index("kind")["detail"]
    assert problems["folder as a class"].startswith(f"'{folder}' (")
    assert problems["several labels"].endswith(f"joins '{names[0]}' and '{names[1]}'")
