from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kpipe.data import Manifest, Sampling, TrainingOptions
from kpipe.data.loading.epochs import (
    bootstrap_counts,
    draw_photos,
    in_batches,
    mixing_seed,
    photos_per_epoch,
)

CLASSES = {"cat": 20, "dog": 9, "owl": 4}
fold_in = tf.random.experimental.stateless_fold_in


@pytest.fixture
def manifest(listed: Callable[..., Manifest]) -> Manifest:
    digests = (f"{number:064x}" for number in itertools.count(1 << 250, 0xABCDEF << 230))
    rows = [(next(digests), label, "train") for label, n in CLASSES.items() for _ in range(n)]
    return listed([rows[place] for place in np.random.default_rng(0).permutation(len(rows))])


def _epoch(manifest: Manifest, training: TrainingOptions) -> dict[str, np.ndarray]:
    count = photos_per_epoch(manifest.labels("train"), training.sampling)
    photos = draw_photos(manifest, "train", training).batch(count)
    return next(photos.as_numpy_iterator())


def _key(manifest: Manifest, place: int) -> int:
    key = int(manifest.table["sha256"][place][:16], 16)
    return key - 2**64 if key >= 2**63 else key


def test_without_sampling_each_photo_comes_once_and_is_augmented(manifest: Manifest) -> None:
    photos = _epoch(manifest, TrainingOptions(3))
    assert sorted(photos["place"]) == list(range(33))
    assert photos["augmented"].all()


def test_rows_of_the_same_bytes_are_augmented_each_in_its_own_way(
    listed: Callable[..., Manifest],
) -> None:
    rows = [(f"{n % 3 + 5:064x}", label, "train") for n, label in enumerate("aabbab" * 2)]
    photos = _epoch(listed(rows), TrainingOptions(3))
    assert sorted(photos["place"]) == list(range(12))
    assert len(np.unique(photos["seed"], axis=0)) == 12


@pytest.mark.parametrize("sampling", [None, Sampling("oversample"), Sampling("undersample")])
def test_the_seed_of_a_photo_is_folded_of_seed_epoch_copy_and_content(
    sampling: Sampling | None, manifest: Manifest
) -> None:
    photos = _epoch(manifest, TrainingOptions(3, first_epoch=2, sampling=sampling))
    places, seeds = photos["place"], photos["seed"]
    epoch = tf.constant([3, 2], tf.int64)
    for place in np.unique(places):
        found = sorted(map(tuple, seeds[places == place]))
        streams = [
            epoch,
            *(fold_in(epoch, tf.constant(copy, tf.int64)) for copy in range(1, len(found))),
        ]
        key = tf.constant(_key(manifest, place), tf.int64)
        assert found == sorted(tuple(fold_in(stream, key).numpy()) for stream in streams)
    assert len(np.unique(seeds, axis=0)) == len(seeds)


def test_the_sampling_is_asked_in_the_order_of_content(manifest: Manifest) -> None:
    asked = []

    class Asked(Sampling):
        def draw(self, labels: Any, seed: int, epoch: int) -> Any:
            asked.append((labels.tolist(), seed, epoch))
            return super().draw(labels, seed, epoch)

    training = TrainingOptions(-5, sampling=Asked("augment_minority"), first_epoch=1)
    photos = _epoch(manifest, training)
    by_content = np.argsort([_key(manifest, place) for place in range(33)])
    labels = manifest.labels("train")[by_content]
    assert asked[0] == (labels.tolist(), -5, 1)
    positions, copies = Sampling("augment_minority").draw(labels, -5, 1)
    np.testing.assert_array_equal(sorted(photos["place"]), sorted(by_content[positions]))
    repeats = by_content[positions[copies > 0]]
    augmented = photos["place"][photos["augmented"]]
    np.testing.assert_array_equal(sorted(augmented), sorted(repeats))


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (12, 4), (3, 4), (1, 1)])
def test_batches_end_with_the_epoch(count: int, batch_size: int) -> None:
    batches = in_batches(tf.data.Dataset.range(3 * count), count, batch_size)
    epochs = np.arange(3 * count).reshape(3, count)
    expected = [
        epoch[start : start + batch_size].tolist()
        for epoch in epochs
        for start in range(0, count, batch_size)
    ]
    assert [batch.tolist() for batch in batches.as_numpy_iterator()] == expected


@pytest.mark.parametrize(("number", "epoch", "place"), [(0, 2, 0), (3, 2, 3), (4, 3, 0), (9, 4, 1)])
def test_the_seed_of_a_mixing_is_folded_of_seed_epoch_and_batch(
    number: int, epoch: int, place: int
) -> None:
    found = mixing_seed(TrainingOptions(3, first_epoch=2), 4, tf.constant(number, tf.int64))
    mixing = tf.constant(zlib.crc32(b"mixing"), tf.int64)
    expected = fold_in(
        fold_in(tf.constant([3, epoch], tf.int64), mixing), tf.constant(place, tf.int64)
    )
    np.testing.assert_array_equal(found, expected)


def test_a_bootstrap_sample_has_as_many_photos_of_each_class(manifest: Manifest) -> None:
    labels = manifest.labels("train")
    drawn = [bootstrap_counts(manifest, "train", seed) for seed in range(30)]
    for counts in drawn:
        shown = np.repeat(labels, counts)
        np.testing.assert_array_equal(np.bincount(shown), np.bincount(labels))
    place = _epoch(manifest, TrainingOptions(3, bootstrap=7))["place"]
    np.testing.assert_array_equal(np.bincount(place, minlength=len(labels)), drawn[7])
    assert len({tuple(counts) for counts in drawn}) == 30
    # Each photo is left out with a probability of (1 - 1/n)^n, n photos of its class.
    expected = np.mean([(1 - 1 / n) ** n for n in np.bincount(labels)[labels]])
    assert abs((np.array(drawn) == 0).mean() - expected) < 0.05


def test_a_bootstrap_sample_is_that_of_all_epochs_and_copies_differ(manifest: Manifest) -> None:
    first, later = (
        _epoch(manifest, TrainingOptions(3, first_epoch=epoch, bootstrap=5)) for epoch in (0, 4)
    )
    assert sorted(first["place"]) == sorted(later["place"])
    assert len(np.unique(first["seed"], axis=0)) == len(first["seed"])


def test_a_bootstrap_sample_depends_on_the_content_and_not_on_the_order_of_rows(
    manifest: Manifest, listed: Callable[..., Manifest]
) -> None:
    table = manifest.table
    columns = [table[name].tolist() for name in ("sha256", "label", "split")]
    again = listed(list(zip(*columns, strict=True))[::-1])
    one, other = (
        table.table["sha256"].to_numpy()[_epoch(table, TrainingOptions(3, bootstrap=5))["place"]]
        for table in (manifest, again)
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("method", ["oversample", "undersample"])
def test_a_sampling_draws_from_the_bootstrap_sample(manifest: Manifest, method: Any) -> None:
    sampling = Sampling(method)
    photos = _epoch(manifest, TrainingOptions(3, sampling=sampling, bootstrap=5))
    held = bootstrap_counts(manifest, "train", 5)
    assert (held[photos["place"]] > 0).all()
    counts = np.bincount(manifest.labels("train")[photos["place"]])
    assert len(set(counts)) == 1
