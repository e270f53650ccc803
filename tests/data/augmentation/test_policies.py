from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kpipe.data.augmentation import policies
from kpipe.data.augmentation.policies import _chain
from tests.data.drawing import noisy_photo


def test_a_chain_applies_the_operations_of_its_indices_with_seeds_of_their_own() -> None:
    seeds = []

    def add(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        seeds.append(tuple(seed.numpy()))
        return photo + 1

    def double(photo: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        seeds.append(tuple(seed.numpy()))
        return photo * 2

    photo, seed = tf.constant(noisy_photo(4, 4)), tf.constant([1, 2], tf.int64)
    out = _chain([add, double], photo, tf.constant([0, 1, 1]), seed)
    np.testing.assert_allclose(out, (photo + 1) * 4)
    assert len(set(seeds)) == 3


def test_rand_augment_applies_two_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "_shapes", lambda magnitude: [lambda photo, seed: photo + 1])
    monkeypatch.setattr(policies, "_lights", lambda magnitude: [lambda photo, seed: photo + 10])
    operation = policies.rand_augment(0.5)
    image = tf.zeros((4, 4, 3))
    sums = {float(operation(image, tf.constant([0, n], tf.int64))[0, 0, 0]) for n in range(40)}
    # Of +1, +10 and nothing, each pair.
    assert sums == {0, 1, 2, 10, 11, 20}


def test_aug_mix_blends_a_photo_with_chains_of_one_to_three_operations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(policies, "_shapes", lambda severity: [lambda photo, seed: photo + 10])
    operation, image = policies.aug_mix(0.3), tf.zeros((4, 4, 3))
    seeds = tf.constant([[0, n] for n in range(1000)], tf.int64)
    drawn = tf.function(
        lambda: tf.map_fn(lambda seed: operation(image, seed), seeds, fn_output_signature="float32")
    )().numpy()
    assert np.ptp(drawn, axis=(1, 2, 3)).max() == 0
    # A share of the photo, uniform in [0, 1], and the rest 10, 20 or 30 brighter.
    values = drawn[:, 0, 0, 0]
    assert 0 <= values.min() < 0.5
    assert 25 < values.max() <= 30
    assert 9.3 < values.mean() < 10.7
