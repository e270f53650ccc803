"""Soft labels from a teacher."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.train import TrainingConfig, TrainingData, fit, soft_labels

IMAGES = np.random.default_rng(0).uniform(0, 1, (12, 4, 4, 3)).astype("float32")
LABELS = np.arange(12, dtype=np.int32) % 3


def teacher() -> keras.Model:
    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 3))
    # Dropout: the predictions of a teacher in training mode would vary.
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(pixels))
    return keras.Model(pixels, keras.layers.Dense(3, "softmax")(x))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("one_hot", [False, True])
def test_soft_labels_mix_labels_and_predictions(share: float, one_hot: bool) -> None:
    model, truth = teacher(), np.eye(3, dtype="float32")[LABELS]
    weights = np.arange(12, dtype="float32")
    given = tf.data.Dataset.from_tensor_slices((IMAGES, truth if one_hot else LABELS, weights))
    (images, labels, kept), *rest = list(soft_labels(given.batch(12), model, share))
    answers = np.array(model(IMAGES, training=False))
    np.testing.assert_allclose(labels, (1 - share) * truth + share * answers, atol=1e-6)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(kept, weights)
    assert not rest


def test_a_student_learns_the_predictions_of_its_teacher() -> None:
    model = teacher()
    student = keras.models.clone_model(model)
    batches = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(6)

    def distance() -> float:
        return float(np.abs(np.array(student(IMAGES)) - np.array(model(IMAGES))).mean())

    before = distance()
    fit(
        student,
        TrainingData(lambda epoch: soft_labels(batches, model).repeat(), 2),
        TrainingConfig(30, learning_rate=0.02),
    )
    assert distance() < before / 2


def test_invalid_arguments_are_rejected() -> None:
    batches = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(6)
    with pytest.raises(TrainingError, match=r"out of range.*\n.*\[0, 1\]"):
        soft_labels(batches, teacher(), 1.5)
    with pytest.raises(TrainingError, match="has no labels"):
        soft_labels(batches.map(lambda images, labels: images), teacher())
