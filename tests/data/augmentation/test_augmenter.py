from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from kpipe.data import Augmenter
from kpipe.errors import DataError
from tests.data.drawing import draws, noisy_photo


def test_color_beside_saturation_or_hue_is_refused_by_name() -> None:
    with pytest.raises(DataError) as caught:
        Augmenter(color=0.1, saturation=0.2, hue=0.3)
    for words in ("color=0.1", "saturation=0.2", "hue=0.3", "color=0"):
        assert words in str(caught.value)
    assert Augmenter(saturation=0.2, hue=0.3).color == 0


@pytest.mark.slow
def test_keras_cv_is_imported_for_its_operations_alone_and_stands_tfmot() -> None:
    script = """
import os, sys
os.environ.pop("TF_USE_LEGACY_KERAS", None)
import tensorflow as tf
from kpipe.data import Augmenter, Mixer
seeds = tf.constant([[1, 2]])
Augmenter(rotate=.1, blur=.5, rand_augment=.3, erase=1)(tf.zeros((1, 16, 16, 3)), seeds)
assert "keras_cv" not in sys.modules
from kpipe.sparsity import prune_magnitude
for name in ("grid_mask", "channel_shuffle"):
    Augmenter(**{name: 1.0})(tf.zeros((1, 16, 16, 3)), seeds)
Mixer(fourier_mix=1)(tf.zeros((2, 16, 16, 3)), tf.zeros((2, 3)), seeds[0])
assert "keras_cv" in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_one_operation_does_not_move_the_draw_of_another() -> None:
    image = noisy_photo()
    alone = draws(Augmenter(flip="horizontal"), image, 20)
    dim = draws(Augmenter(flip="horizontal", brightness=1e-6), image, 20)
    np.testing.assert_allclose(alone, dim, atol=1e-3)


def test_python_random_state_is_left_alone() -> None:
    import random

    random.seed(0)
    before = random.getstate()
    draws(Augmenter(rotate=0.1, blur=0.5, rand_augment=0.2, aug_mix=0.2, erase=1), noisy_photo(), 2)
    assert random.getstate() == before


def test_scaling_multiplies_strengths_within_their_ranges() -> None:
    augmenter = Augmenter(flip="vertical", rotate=0.1, brightness=0.6, blur=0.4, crop=0.8, jpeg=70)
    assert augmenter.scaled(1) == augmenter
    assert augmenter.scaled(0) == Augmenter(flip="vertical")
    double = augmenter.scaled(2)
    assert double.rotate == pytest.approx(0.2)
    assert double.brightness == 1
    assert double.crop == pytest.approx(0.6)
    assert double.jpeg == pytest.approx(40)
    assert augmenter.scaled(100).crop == 0.1
    for factor in (-1, float("nan"), float("inf")):
        with pytest.raises(DataError, match="cannot be scaled"):
            augmenter.scaled(factor)


def test_every_value_out_of_range_is_named() -> None:
    with pytest.raises(DataError) as caught:
        Augmenter(
            flip="horizontl", rotate=0.6, brightness=-0.1, contrast=2, blur=-1, crop=0,
            color=float("nan"),
        )  # fmt: skip
    message = str(caught.value)
    assert "did you mean 'horizontal'?" in message
    for name in ("rotate=0.6", "brightness=-0.1", "contrast=2", "blur=-1", "crop=0", "color="):
        assert name in message


def test_augmenters_are_equal_by_value() -> None:
    assert Augmenter(rotate=0.1) == Augmenter(rotate=0.1)
    assert hash(Augmenter(rotate=0.1)) == hash(Augmenter(rotate=0.1))
    assert repr(Augmenter(rotate=0.1)).startswith("Augmenter(flip='', rotate=0.1")
