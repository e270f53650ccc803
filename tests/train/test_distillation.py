"""Labels of a teacher, and its features."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.train import FitPlan, fit, soft_labels, taught

IMAGES = np.random.default_rng(0).uniform(0, 1, (12, 4, 4, 3)).astype("float32")
LABELS = np.arange(12, dtype=np.int32) % 3


def teacher() -> keras.Model:
    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 3))
    # Dropout: a teacher that trained would answer otherwise each time.
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(pixels))
    return keras.Model(pixels, keras.layers.Dense(3, "softmax")(x))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("one_hot", [False, True])
def test_labels_are_a_mean_of_truth_and_answer(share: float, one_hot: bool) -> None:
    model, truth = teacher(), np.eye(3, dtype="float32")[LABELS]
    weights = np.arange(12, dtype="float32")
    given = tf.data.Dataset.from_tensor_slices((IMAGES, truth if one_hot else LABELS, weights))
    (images, labels, kept), *rest = list(soft_labels(given.batch(12), model, share))
    answers = np.array(model(IMAGES, training=False))
    np.testing.assert_allclose(labels, (1 - share) * truth + share * answers, atol=1e-6)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(kept, weights)
    assert not rest


def test_a_student_comes_to_answer_like_its_teacher() -> None:
    model = teacher()
    student = keras.models.clone_model(model)
    batches = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(6)

    def distance() -> float:
        return float(np.abs(np.array(student(IMAGES)) - np.array(model(IMAGES))).mean())

    before = distance()
    fit(
        student,
        lambda epoch: soft_labels(batches, model).repeat(),
        steps_per_epoch=2,
        plan=FitPlan(30, learning_rate=0.02),
    )
    assert distance() < before / 2


def test_bad_input_is_named() -> None:
    batches = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(6)
    with pytest.raises(TrainingError, match=r"out of range.*\n.*\[0, 1\]"):
        soft_labels(batches, teacher(), 1.5)
    with pytest.raises(TrainingError, match="no labels to soften"):
        soft_labels(batches.map(lambda images, labels: images), teacher())


BATCHES = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(6)


def network(width: int, *, nested: bool = False, seed: int = 0) -> keras.Model:
    """A convolution of so many filters, pooled, with Dropout before its only Dense layer."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(width, 3, activation="relu")(pixels)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if nested:
        pooled = keras.Model(pixels, pooled, name="inner")(pixels)
    x = keras.layers.Dropout(0.5)(pooled)
    return keras.Model(pixels, keras.layers.Dense(3, "softmax", name="answers")(x))


def features(model: keras.Model) -> np.ndarray:
    kinds = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Conv2D)]
    return np.array(kinds[0](IMAGES)).mean(axis=(1, 2))


def targets(model: keras.Model) -> np.ndarray:
    known = features(model)
    deviation = known.std(axis=0)
    return (known - known.mean(axis=0)) / (deviation + 0.05 * deviation.mean())


def first_projection(student: keras.Model, teacher: keras.Model) -> np.ndarray:
    """Ridge regression in closed form, of the targets on the student's features."""
    own = features(student)
    centred = own - own.mean(axis=0)
    penalty = 0.3 * len(own) * own.var(axis=0).mean() * np.eye(own.shape[1])
    return centred @ np.linalg.solve(centred.T @ centred + penalty, centred.T @ targets(teacher))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("layer", [None, "answers"])
def test_the_teacher_adds_to_the_loss_of_a_training(nested: bool, layer: str | None) -> None:
    whole, small = network(6, nested=nested), network(2, nested=nested, seed=1)
    # Dropout changes answers and not the features that are compared; without it, both are known.
    for part in small.layers:
        if isinstance(part, keras.layers.Dropout):
            part.rate = 0.0
    twin = taught(small, whole, BATCHES, answers=3, features=7, layer=layer)
    answers = np.array(twin(IMAGES, training=True))
    np.testing.assert_allclose(answers, small(IMAGES), atol=1e-6)
    entropy = -(np.array(whole(IMAGES)) * np.log(answers)).sum(axis=1).mean()
    squares = np.square(first_projection(small, whole) - targets(whole)).mean()
    added = np.array(twin.losses)
    np.testing.assert_allclose(added, [3 * entropy, 7 * squares], rtol=1e-4)
    assert 0 < squares < np.square(targets(whole)).mean()


def test_features_are_taken_before_dropout() -> None:
    whole, small = network(6), network(2, seed=1)
    twin = taught(small, whole, BATCHES, answers=0)
    twin(IMAGES, training=True)
    first = np.array(twin.losses)
    twin(IMAGES, training=True)
    np.testing.assert_array_equal(first, twin.losses)


def test_outside_of_training_the_twin_is_the_student() -> None:
    whole, small = network(6), network(2, seed=1)
    twin = taught(small, whole, BATCHES)
    for model in (small, twin):
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    np.testing.assert_array_equal(twin.predict(IMAGES, verbose=0), small.predict(IMAGES, verbose=0))
    assert not twin.losses
    assert twin.evaluate(BATCHES, verbose=0) == small.evaluate(BATCHES, verbose=0)


def test_a_maps_mean_over_its_places_is_compared() -> None:
    whole, small = network(6), network(2, seed=1)
    losses = []
    for layer in (None, "pool"):
        twin = taught(small, whole, BATCHES, layer=layer)
        twin(IMAGES, training=True)
        losses.append(float(twin.losses[1]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("weights", [{}, {"features": 0}, {"answers": 0}])
def test_only_the_student_learns(weights: dict[str, float]) -> None:
    """In `fit` as in Keras' own; by the teacher alone, without a label that is right."""
    whole, small = network(6), network(6, seed=1)
    twin = taught(small, whole, BATCHES, **weights)
    paths, teacher = [v.path for v in small.variables], whole.get_weights()

    def distance() -> float:
        twin(IMAGES, training=True)
        return float(twin.losses[-1])

    before = distance()
    wrong = tf.data.Dataset.from_tensor_slices((IMAGES, np.full((12, 3), 1 / 3, "float32")))
    fit(
        twin,
        lambda epoch: wrong.batch(6).repeat(),
        steps_per_epoch=2,
        plan=FitPlan(60, learning_rate=0.02),
    )
    # Answers have an entropy of their own, that no learning takes away.
    assert distance() < before * (1 if weights.get("features") == 0 else 0.5)
    assert [v.path for v in small.variables] == paths
    for old, new in zip(teacher, whole.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_training_with_a_teacher_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    def train(folder: Path, epochs: int) -> list[np.ndarray]:
        small = network(2, seed=1)
        twin = taught(small, network(6), BATCHES)
        keras.utils.set_random_seed(0)
        callbacks = [Stop()] if epochs == 1 else []
        with contextlib.suppress(KeyboardInterrupt):
            fit(
                twin,
                lambda epoch: BATCHES.repeat(),
                steps_per_epoch=2,
                plan=FitPlan(3),
                folder=folder,
                callbacks=callbacks,
            )
        return small.get_weights()

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    whole = train(tmp_path / "whole", 3)
    train(tmp_path / "cut", 1)
    for one, other in zip(whole, train(tmp_path / "cut", 3), strict=True):
        np.testing.assert_array_equal(one, other)


def two_inputs() -> keras.Model:
    one, two = keras.Input((4, 4, 3)), keras.Input((2,))
    flat = keras.layers.Concatenate()([keras.layers.Flatten()(one), two])
    return keras.Model([one, two], keras.layers.Dense(3, "softmax")(flat))


def constant() -> keras.Model:
    model = network(2)
    model.layers[1].set_weights([np.zeros_like(x) for x in model.layers[1].get_weights()])
    return model


def hidden() -> keras.Model:
    pixels = keras.Input((4, 4, 3))
    return keras.Model(pixels, network(2)(pixels))


def without_dense() -> keras.Model:
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.GlobalAveragePooling2D(name="mean")(pixels)
    return keras.Model(pixels, keras.layers.Softmax(name="soft")(x))


def broken() -> keras.Model:
    model = network(2)
    model.layers[-1].bias.assign([np.nan] * 3)
    return model


class Subclassed(keras.Model):
    """No graph to look into."""


@pytest.mark.parametrize(
    ("student", "teacher", "settings", "message"),
    [
        (network, network, {"answers": -1}, "answers, a weight in the loss, is out of range"),
        (network, network, {"features": "much"}, "features, a weight .* is out of range"),
        (network, network, {"layer": "hint"}, "the teacher has no layer 'hint'"),
        (network, without_dense, {}, r"the teacher has no Dense layer\n.*layer=.*\n.*mean, soft"),
        (hidden, network, {}, "of the student cannot be compared"),
        (two_inputs, network, {}, r"the student is no model from images.*\n.*\n.*2 inputs"),
        (network, two_inputs, {}, "the teacher is no model from images"),
        (network, broken, {}, "NaN or infinite: answers/bias"),
        (network, constant, {}, "features are the same for every photo"),
        (Subclassed, network, {}, "has no graph of layers"),
        (network, network, {"sample": []}, "sample is empty"),
        (network, network, {"sample": BATCHES.repeat()}, "sample has no end"),
    ],
)
def test_a_teacher_that_cannot_teach(
    student: Any, teacher: Any, settings: dict[str, Any], message: str
) -> None:
    made = [make(3) if make is network else make() for make in (student, teacher)]
    with pytest.raises(TrainingError, match=message):
        taught(*made, **{"sample": BATCHES, **settings})


def test_a_twin_is_not_kept_in_place_of_its_student(tmp_path: Path) -> None:
    small = network(2)
    twin = taught(small, network(4), BATCHES)
    with pytest.raises(TrainingError, match="save the student"):
        twin.save(tmp_path / "twin.keras")
    small.save(tmp_path / "small.keras")


def test_a_student_that_sees_nothing_begins_at_nothing() -> None:
    twin = taught(constant(), network(4), BATCHES, answers=0, features=1)
    twin(IMAGES, training=True)
    varies = np.square(targets(network(4))).mean()
    assert float(twin.losses[1]) == pytest.approx(varies, rel=1e-4)


def test_other_classes_than_the_teachers_are_refused() -> None:
    pixels = keras.Input((4, 4, 3))
    other = keras.Model(pixels, keras.layers.Dense(5, "softmax")(keras.layers.Flatten()(pixels)))
    with pytest.raises(TrainingError, match=r"answer differently\n.*3\).*\n.*5\)"):
        taught(other, network(2), BATCHES)
