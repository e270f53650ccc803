from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from kpipe.core.digests import Digests
from kpipe.core.stage import Context
from kpipe.data import Augmenter, Manifest
from kpipe.errors import DataError
from kpipe.stages import Augment, Balance, Data
from kpipe.stages.photos import Photos
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
    memory = Digests(Path(stage.source).parent / "digests.sqlite")
    found = [memory.path(path) for path in stage.sources()]
    memory.close()
    return found


def notes(events) -> str:
    return "\n".join(event["text"] for event in events if event["event"] == "note")


def test_a_folder_is_split_and_decoded(perform, source: Path) -> None:
    folder, events = perform(Data(source, image_size=32, split=(0.5, 0.25, 0.25)))
    manifest = Manifest.load(folder)
    assert manifest.classes == ("blue", "green", "red")
    counts = manifest.counts()
    for name, (total, _) in COUNTS.items():
        assert list(counts.loc[name]) == [total // 2, total // 4, total // 4]
    images = np.load(folder / "images.npy")
    assert images.shape == (60, 32, 32, 3)
    # A photo of 48 x 40 keeps its aspect: the middle 40 columns.
    row = manifest.table.iloc[7]
    expected = Image.open(row["path"]).resize((32, 32), 2, box=(4, 0, 44, 40))
    assert np.abs(images[7].astype(int) - np.asarray(expected, int)).max() <= 1
    assert "60 photos; train/validation/test: blue 12/6/6, green 10/5/5, red 8/4/4" in notes(events)
    assert json.loads((folder / "data.json").read_text()) == {
        "image_size": 32,
        "classes": ["blue", "green", "red"],
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
    assert stage.problems() == []
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


def test_class_weights_are_those_of_scikit_learn(perform, data_folder: Path) -> None:
    folder, events = perform(Balance(), data=data_folder)
    labels = Manifest.load(data_folder).labels("train")
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    found = json.loads((folder / "balance.json").read_text())
    np.testing.assert_allclose(found["class_weight"], expected, rtol=1e-12)
    assert f"red x{expected[2]:.2f}" in notes(events)
    photos = read(data_folder, balance=folder)
    assert photos.class_weight == pytest.approx(dict(enumerate(expected)))


def test_the_augmentation_makes_the_round_trip(perform, data_folder: Path) -> None:
    stage = Augment(flip="vertical", rotate=0.25, color=0.3, crop=0.5)
    folder, _ = perform(stage, data=data_folder)
    assert read(data_folder, augmentation=folder).augmenter == Augmenter(**stage.configuration())


def read(data: Path, **inputs: Path) -> Photos:
    found = {kind: (folder,) for kind, folder in {"data": data, **inputs}.items()}
    return Photos.read(Context(data, found, 3, None), batch_size=7)  # type: ignore[arg-type]


def test_evaluation_sees_the_raw_pixels_in_the_order_of_the_manifest(
    perform, data_folder: Path
) -> None:
    strong = Augment(flip="horizontal_and_vertical", rotate=0.5, brightness=1.0, crop=0.1)
    photos = read(data_folder, augmentation=perform(strong, data=data_folder)[0])
    for split in ("validation", "test"):
        batches = list(photos.finite(split))
        images = np.concatenate([images for images, _ in batches])
        rows = photos.manifest.rows(split)
        np.testing.assert_array_equal(images, photos.images[rows].astype(np.float32))
        labels = np.concatenate([labels for _, labels in batches])
        np.testing.assert_array_equal(labels, photos.manifest.labels(split))


def test_training_sees_each_training_photo_once_an_epoch(photos: Photos) -> None:
    batches = list(photos.training(0).take(photos.steps))
    images = np.concatenate([images for images, _ in batches]).astype(np.uint8)
    expected = photos.images[photos.manifest.rows("train")]
    assert {image.tobytes() for image in images} == {image.tobytes() for image in expected}
    assert len(images) == len(expected) == 36
    assert photos.steps == 5


def test_training_from_an_epoch_on_is_training_that_went_on(perform, data_folder: Path) -> None:
    photos = read(data_folder, augmentation=perform(Augment(), data=data_folder)[0])
    whole = list(photos.training(0).take(2 * photos.steps))[photos.steps :]
    resumed = list(photos.training(1).take(photos.steps))
    for (one, its), (other, others) in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(its, others)


def test_varied_photos_come_in_another_order_with_another_strength(
    perform, data_folder: Path
) -> None:
    photos = read(data_folder, augmentation=perform(Augment(rotate=0.1), data=data_folder)[0])
    varied = photos.varied(99, 0.5)
    assert photos.augmenter is not None and varied.augmenter is not None
    assert varied.augmenter.rotate == pytest.approx(0.05)
    assert photos.augmenter.rotate == 0.1
    plain = read(data_folder)
    orders = [list(p.training(0).take(p.steps)) for p in (plain, plain.varied(99, 1.0))]
    labels = [np.concatenate([labels for _, labels in order]) for order in orders]
    assert not np.array_equal(*labels)
    np.testing.assert_array_equal(np.sort(labels[0]), np.sort(labels[1]))


def test_images_of_other_photos_are_refused(data_folder: Path, tmp_path: Path) -> None:
    torn = Path(shutil.copytree(data_folder, tmp_path / "torn"))
    np.save(torn / "images.npy", np.load(torn / "images.npy")[:-1])
    with pytest.raises(DataError, match="59 images for 60 photos"):
        read(torn)
