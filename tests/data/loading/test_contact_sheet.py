from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kpipe.data import (
    Augmenter,
    Manifest,
    Mixer,
    TrainingOptions,
    contact_sheet,
    dataset,
    decode,
    from_folder,
    split,
)
from kpipe.errors import DataError

AUGMENTER = Augmenter(flip="horizontal", rotate=0.1, brightness=0.2, noise=0.1)
CELL, GAP, LINE, NAME = 128, 4, 14, 110


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    return split(from_folder(folder), (0.6, 0.2, 0.2), 0)


@pytest.fixture
def images(manifest: Manifest, tmp_path: Path) -> np.ndarray:
    return decode(manifest, 32, tmp_path)


def cell(sheet: np.ndarray, row: int, column: int, step: int = CELL + GAP) -> np.ndarray:
    """A photo of 32 pixels, taken back from its place: each pixel stands there 4 x 4 times."""
    top, left = LINE + GAP + row * step, NAME + column * (CELL + GAP)
    shown = sheet[top : top + CELL, left : left + CELL]
    np.testing.assert_array_equal(shown, shown[::4, ::4].repeat(4, 0).repeat(4, 1))
    return shown[::4, ::4]


def shown_rows(sheet: np.ndarray, images: np.ndarray, count: int) -> list[int]:
    """Which photo of the manifest stands in each row."""
    originals = [cell(sheet, row, 0) for row in range(count)]
    return [int(np.flatnonzero((images == one).all((1, 2, 3)))[0]) for one in originals]


@pytest.mark.slow
def test_views_are_what_training_shows_in_the_first_epochs(manifest, images) -> None:
    sheet = np.asarray(contact_sheet(manifest, images, AUGMENTER, seed=9, rows=4, views=3))
    rows = shown_rows(sheet, images, 4)
    train = manifest.rows("train")
    batches = dataset(manifest, "train", images=images, batch_size=len(train),
                      training=TrainingOptions(9, AUGMENTER))  # fmt: skip
    for epoch, (photos, _) in enumerate(batches.take(3).as_numpy_iterator()):
        for row in range(4):
            distance = abs(photos - cell(sheet, row, 1 + epoch)).max((1, 2, 3))
            assert distance.min() <= 0.5001  # rounded for the eye
    assert set(rows) <= set(train)


def test_photos_are_spread_over_the_classes(manifest, images) -> None:
    sheet = np.asarray(contact_sheet(manifest, images, Augmenter(), rows=6, views=1))
    labels = manifest.table["label"].to_numpy()[shown_rows(sheet, images, 6)]
    assert list(labels) == ["cat", "cat", "dog", "dog", "owl", "owl"]
    few = np.asarray(contact_sheet(manifest, images, Augmenter(), rows=2, views=1))
    labels = manifest.table["label"].to_numpy()[shown_rows(few, images, 2)]
    assert list(labels) == ["cat", "owl"]


def test_which_photos_stand_there_does_not_hang_on_the_order_of_the_table(manifest, images) -> None:
    order = np.random.default_rng(0).permutation(len(manifest.table))
    table = manifest.table.iloc[order].reset_index(drop=True)
    shuffled = Manifest(table, manifest.classes, manifest.problems)
    settings = {"rows": 5, "views": 2, "seed": 4}
    one = contact_sheet(manifest, images, AUGMENTER, **settings)
    other = contact_sheet(shuffled, images[order], AUGMENTER, **settings)
    np.testing.assert_array_equal(one, other)


def test_it_is_no_larger_than_rows_and_views_ask_for(manifest, images) -> None:
    sheet = contact_sheet(manifest, images, Augmenter(), rows=5, views=2)
    assert sheet.size == (NAME + 3 * (CELL + GAP), LINE + GAP + 5 * (CELL + GAP))
    large = np.repeat(np.repeat(images, 8, 1), 4, 2)  # 256 x 128: reduced to 128 x 64
    sheet = contact_sheet(manifest, large, Augmenter(), rows=5, views=2)
    assert sheet.size == (NAME + 3 * (64 + GAP), LINE + GAP + 5 * (CELL + GAP))
    # More rows than photos: all of them.
    everything = contact_sheet(manifest, images, Augmenter(), rows=500, views=1)
    assert everything.size[1] == LINE + GAP + len(manifest.rows("train")) * (CELL + GAP)


def test_mixed_photos_are_shown_with_room_for_their_shares(manifest, images) -> None:
    mixed = contact_sheet(manifest, images, Augmenter(), mixer=Mixer(cut_mix=1), rows=6, views=2)
    sheet, step = np.asarray(mixed), CELL + GAP + LINE
    assert mixed.size[1] == LINE + GAP + 6 * step
    originals = [cell(sheet, row, 0, step) for row in range(6)]
    different = 0
    for row in range(6):
        view = cell(sheet, row, 1, step)
        # Every pixel is one of the six photos', in its own place.
        assert np.any([(view == one).all(-1) for one in originals], axis=0).all()
        different += not np.array_equal(view, originals[row])
        told = sheet[LINE + GAP + row * step + CELL :][:LINE, NAME + CELL + GAP :][:, :CELL]
        assert told.min() < 128  # ink
    assert different >= 2


def test_an_empty_sheet_is_refused(manifest, images) -> None:
    with pytest.raises(DataError, match="0 rows and 6 views"):
        contact_sheet(manifest, images, Augmenter(), rows=0)
    unsplit = manifest.table.assign(split="")
    with pytest.raises(DataError, match="train split is empty"):
        contact_sheet(Manifest(unsplit, manifest.classes, manifest.problems), images, Augmenter())
