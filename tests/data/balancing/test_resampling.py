from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from kpipe.data import Manifest, Sampling, augment_minority, oversample, undersample
from kpipe.errors import DataError

LABELS = np.repeat([0, 1, 2], [9, 4, 2])
FUNCTIONS = {
    "oversample": oversample,
    "undersample": undersample,
    "augment_minority": augment_minority,
}

every = pytest.mark.parametrize("method", FUNCTIONS)


@pytest.fixture
def manifest(listed: Callable[..., Manifest]) -> Manifest:
    rows = [(f"{i:02}{'ab'[i % 2]}", "xyz"[label], "train") for i, label in enumerate(LABELS)]
    rows += [(f"{name}{split}", name, split) for name in "xxyz" for split in ("test", "validation")]
    order = np.random.default_rng(0).permutation(len(rows))
    return listed([rows[i] for i in order], note=[f"row {i}" for i in range(len(rows))])


@every
@pytest.mark.parametrize("ratio", [1.0, 0.6])
def test_labels_give_positions_that_meet_the_targets(method: str, ratio: float) -> None:
    positions = FUNCTIONS[method](LABELS, ratio, seed=3)
    assert positions.dtype == np.int64
    drawn = dict(enumerate(np.bincount(LABELS[positions]).tolist()))
    assert drawn == Sampling(method, ratio).targets(LABELS)
    np.testing.assert_array_equal(positions, Sampling(method, ratio).draw(LABELS, 3, 0)[0])
    np.testing.assert_array_equal(positions, FUNCTIONS[method](LABELS.tolist(), ratio, seed=3))


@every
def test_a_manifest_meets_the_targets_and_keeps_the_other_splits(
    method: str, manifest: Manifest
) -> None:
    before = manifest.table.copy()
    found = FUNCTIONS[method](manifest, 0.7)
    counts = dict(enumerate(np.bincount(found.labels("train")).tolist()))
    assert counts == Sampling(method, 0.7).targets(LABELS)
    pd.testing.assert_frame_equal(manifest.table, before)
    for split in ("validation", "test"):
        rows = found.table.iloc[found.rows(split)]
        pd.testing.assert_frame_equal(
            rows.reset_index(drop=True),
            before.iloc[manifest.rows(split)].reset_index(drop=True),
        )
    assert found.classes == manifest.classes
    assert found.table.index.equals(pd.RangeIndex(len(found.table)))


@every
def test_each_photo_that_is_repeated_or_left_out_is_told(method: str, manifest: Manifest) -> None:
    found = FUNCTIONS[method](manifest, 0.7)
    times = found.table["path"].value_counts()
    told = found.problems
    assert len(told) and (told["kind"] == method).all()
    said = dict(zip(told["path"], told["detail"], strict=True))
    for path in manifest.table["path"]:
        count = times.get(path, 0)
        expected = {0: "left out", 1: None}.get(count, f"appears {count} times")
        assert said.get(path) == expected


@pytest.mark.parametrize("method", ["oversample", "augment_minority"])
def test_no_photo_is_lost_and_repeats_follow_it(method: str, manifest: Manifest) -> None:
    table = FUNCTIONS[method](manifest, 0.7).table
    pd.testing.assert_frame_equal(
        table.drop_duplicates().reset_index(drop=True), manifest.table, check_dtype=False
    )
    train = table[table["split"] == "train"]
    times, targets = train["path"].value_counts(), Sampling(method, 0.7).targets(LABELS)
    assert len(train) == sum(targets.values())
    assert (train["path"] != train["path"].shift()).sum() == len(times) == len(LABELS)


@every
def test_the_order_of_the_rows_does_not_matter(method: str, manifest: Manifest) -> None:
    turned = Manifest(manifest.table[::-1], manifest.classes, manifest.problems)
    assert FUNCTIONS[method](turned, 0.7).digest == FUNCTIONS[method](manifest, 0.7).digest
    others = {FUNCTIONS[method](manifest, 0.7, seed).digest for seed in range(8)}
    assert len(others) > 1


@every
def test_a_resampled_manifest_is_saved_and_read_back(
    method: str, manifest: Manifest, tmp_path
) -> None:
    found = FUNCTIONS[method](manifest, 0.7)
    found.save(tmp_path)
    pd.testing.assert_frame_equal(Manifest.load(tmp_path).table, found.table, check_dtype=False)


def test_a_declared_class_without_training_photos_is_named(listed) -> None:
    manifest = listed([("a", "cat", "train"), ("b", "dog", "train"), ("c", "emu", "test")])
    with pytest.raises(DataError, match="no label of class 'emu'"):
        oversample(manifest)


def test_a_wrong_ratio_is_refused() -> None:
    with pytest.raises(DataError, match="ratio"):
        undersample(LABELS, 0.0)
