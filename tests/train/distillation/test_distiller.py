"""The Distiller against its formula."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpipe.ensemble import average
from kpipe.errors import TrainingError
from kpipe.train import (
    Distiller,
    LayerDecay,
    TrainingConfig,
    TrainingData,
    backbone,
    classifier,
    fit,
    unfreeze,
)
from kpipe.train.distillation.compared_features import MOST_PHOTOS, last_outputs

IMAGES = np.random.default_rng(0).uniform(0, 1, (12, 4, 4, 3)).astype("float32")
LABELS = np.arange(12, dtype=np.int32) % 3
BATCHES = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(6)


def network(width: int, *, nested: bool = False, seed: int = 0, **settings: Any) -> keras.Model:
    """A convolution with pooling, Dropout and one Dense layer."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(width, 3, activation="relu", **settings)(pixels)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool", **settings)(x)
    if nested:
        pooled = keras.Model(pixels, pooled, name="inner")(pixels)
    x = keras.layers.Dropout(0.5)(pooled)
    return keras.Model(pixels, keras.layers.Dense(3, "softmax", name="answers")(x))


def features(model: keras.Model) -> np.ndarray:
    kinds = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Conv2D)]
    return np.array(tf.cast(kinds[0](IMAGES), "float32")).mean(axis=(1, 2))


def targets(model: keras.Model) -> np.ndarray:
    known = features(model)
    deviation = known.std(axis=0)
    rounding = 1e-4 * np.abs(known.mean(axis=0)).max()
    return (known - known.mean(axis=0)) / (deviation + 0.05 * deviation.mean() + rounding)


def first_projection(student: keras.Model, teacher: keras.Model) -> np.ndarray:
    """Ridge regression in closed form, of the targets on the student's features."""
    own, known = features(student), features(teacher)
    centred = own - own.mean(axis=0)
    larger = max(own.var(axis=0).mean(), known.var(axis=0).mean())
    penalty = 0.3 * len(own) * larger * np.eye(own.shape[1])
    return centred @ np.linalg.solve(centred.T @ centred + penalty, centred.T @ targets(teacher))


def loss_in_training(distiller: keras.Model, labels: Any, weights: Any = None) -> float:
    made = distiller(IMAGES, training=True)
    return float(distiller.compute_loss(IMAGES, labels, made, weights))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("layer", [None, "answers"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_training_loss_follows_the_formula(
    nested: bool, layer: str | None, weighted: bool
) -> None:
    whole, small = network(6, nested=nested), network(2, nested=nested, seed=1)
    for part in small.layers:  # so that the output in training is known
        if isinstance(part, keras.layers.Dropout):
            part.rate = 0.0
    distiller = Distiller(
        small, whole, BATCHES, soft_target_weight=3, feature_weight=7, layer=layer
    )
    distiller.compile(loss="sparse_categorical_crossentropy")
    answers = np.array(small(IMAGES))
    parts = [
        -np.log(answers[np.arange(12), LABELS]),
        -3 * (np.array(whole(IMAGES)) * np.log(answers)).sum(axis=1),
        7 * np.square(first_projection(small, whole) - targets(whole)).mean(axis=1),
    ]
    weights = np.arange(12, dtype="float32") if weighted else None
    expected = np.mean(sum(parts) / 11 * (1 if weights is None else weights))
    assert loss_in_training(distiller, LABELS, weights) == pytest.approx(expected, rel=1e-4)


def test_features_are_taken_before_dropout() -> None:
    distiller = Distiller(network(2, seed=1), network(6), BATCHES)
    (_, one), (_, other) = (distiller(IMAGES, training=True) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_in_inference_it_equals_the_student() -> None:
    small = network(2, seed=1)
    distiller = Distiller(small, network(6), BATCHES)
    for model in (small, distiller):
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    answers = small.predict(IMAGES, verbose=0)
    np.testing.assert_array_equal(distiller.predict(IMAGES, verbose=0), answers)
    assert distiller.evaluate(BATCHES, verbose=0) == small.evaluate(BATCHES, verbose=0)


def test_feature_maps_are_averaged_over_height_and_width() -> None:
    whole, small = network(6), network(2, seed=1)
    losses = []
    for layer in (None, "pool"):
        distiller = Distiller(small, whole, BATCHES, soft_target_weight=0, layer=layer)
        made = distiller(IMAGES, training=True)
        losses.append(float(np.square(distiller._targets(IMAGES)[1] - made[1]).mean()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("weights", [{}, {"feature_weight": 0}, {"soft_target_weight": 0}])
def test_only_the_student_learns(weights: dict[str, float]) -> None:
    """Train with `fit` on uniform labels, so that only the teacher contributes."""
    whole, small = network(6), network(6, seed=1)
    distiller = Distiller(small, whole, BATCHES, **weights)
    paths, teacher = [v.path for v in small.variables], whole.get_weights()
    nothing = np.full((12, 3), 1 / 3, "float32")
    distiller.compile(loss="categorical_crossentropy")
    before = loss_in_training(distiller, nothing)
    result = fit(
        distiller,
        TrainingData(
            lambda epoch: tf.data.Dataset.from_tensor_slices((IMAGES, nothing)).batch(6).repeat(), 2
        ),
        TrainingConfig(60, learning_rate=0.02),
    )
    # The entropy of the soft targets bounds the loss from below.
    assert result.history["loss"][-1] < before * (1 if weights.get("feature_weight") == 0 else 0.6)
    assert {"loss", "accuracy"} == result.history.keys()
    assert [v.path for v in small.variables] == paths
    for old, new in zip(teacher, whole.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_distillation_resumes_after_an_interruption(tmp_path: Path) -> None:
    def train(folder: Path, *callbacks: keras.callbacks.Callback) -> list[np.ndarray]:
        small = network(2, seed=1)
        distiller = Distiller(small, network(6), BATCHES)
        keras.utils.set_random_seed(0)
        with contextlib.suppress(KeyboardInterrupt):
            fit(
                distiller,
                TrainingData(lambda epoch: BATCHES.repeat(), 2, BATCHES),
                TrainingConfig(3, class_weight={0: 3.0}),
                folder=folder,
                callbacks=callbacks,
            )
        return small.get_weights()

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    whole = train(tmp_path / "whole")
    train(tmp_path / "cut", Stop())
    for one, other in zip(whole, train(tmp_path / "cut"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_examples_with_weight_zero_do_not_count() -> None:
    small = network(2, seed=1)
    distiller = Distiller(small, network(6), BATCHES)
    distiller.compile("sgd", "sparse_categorical_crossentropy")
    before = small.get_weights()
    distiller.fit(IMAGES, LABELS, sample_weight=np.zeros(12), shuffle=False, verbose=0)
    for old, new in zip(before, small.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_changes_no_statistics(policy: str) -> None:
    whole, small = network(6, dtype=policy), network(2, seed=1)
    loud = IMAGES * 255
    exact = network(6)
    exact.set_weights(whole.get_weights())
    sample = tf.data.Dataset.from_tensor_slices(loud).batch(4)
    halved, single = (Distiller(small, teacher, sample) for teacher in (whole, exact))
    np.testing.assert_allclose(halved._mean, single._mean, rtol=0.02)
    np.testing.assert_allclose(halved._deviation, single._deviation, rtol=0.05)


def test_in_mixed_precision_it_equals_the_student() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        small = network(2, seed=1)
        distiller = Distiller(small, network(6), BATCHES)
        for model in (small, distiller):
            model.compile("sgd", "sparse_categorical_crossentropy")
        assert distiller.evaluate(BATCHES, verbose=0) == small.evaluate(BATCHES, verbose=0)
        distiller.fit(BATCHES, shuffle=False, verbose=0)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
def test_layer_names_of_loaded_models_may_collide(tmp_path: Path) -> None:
    """EfficientNet has a layer "normalization", a name that a new session reuses."""
    path = tmp_path / "whole.keras"
    classifier(backbone("EfficientNetB0", image_size=32, weights=None), 3).save(path)
    keras.utils.clear_session()
    whole, small = (keras.models.load_model(path) for _ in range(2))
    photos = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    again = Distiller(small, whole, [photos])
    again(photos, training=True)


def test_an_ensemble_teaches_by_its_predictions() -> None:
    whole = average([network(3), network(4, seed=2)])
    with pytest.raises(TrainingError, match="set feature_weight=0"):
        Distiller(network(2), whole, BATCHES)
    distiller = Distiller(network(2), whole, BATCHES, feature_weight=0)
    distiller.compile("sgd", "sparse_categorical_crossentropy")
    distiller.fit(BATCHES, shuffle=False, verbose=0)


def test_features_may_be_those_of_a_member_of_the_ensemble() -> None:
    """The member is computed once: the features are a tensor of the ensemble's graph."""
    member, small = network(6), network(2, seed=1)
    ensemble = average([member, network(4, seed=2)])
    weights = {"soft_target_weight": 3, "feature_weight": 7}
    distiller = Distiller(small, ensemble, BATCHES, feature_teacher=member, **weights)
    answers, known = distiller._targets(IMAGES)
    np.testing.assert_allclose(answers, ensemble(IMAGES), atol=1e-6)
    np.testing.assert_allclose(known, targets(member), atol=1e-4)
    alone = Distiller(small, ensemble, BATCHES, feature_weight=0)
    assert distiller._teacher.steps == alone._teacher.steps
    with pytest.raises(TrainingError, match="no Dense layer at its end"):
        Distiller(small, ensemble, BATCHES, feature_teacher=without_dense())


def test_training_of_a_fresh_student_does_not_diverge() -> None:
    """The penalty prevents the regression from amplifying near-constant features."""
    whole, small = network(6), network(2, seed=1)
    learned = np.abs(Distiller(small, whole, BATCHES)._projection.kernel).max()
    convolution = small.layers[1]
    convolution.set_weights([0.01 * weights for weights in convolution.get_weights()])
    fresh = np.abs(Distiller(small, whole, BATCHES)._projection.kernel).max()
    assert 0 < fresh < learned


def test_a_distiller_has_no_graph_of_layers() -> None:
    distiller = Distiller(network(2), network(4), BATCHES)
    with pytest.raises(TrainingError, match="has no graph of layers"):
        unfreeze(distiller, 3)
    distiller.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(TrainingError, match="has no graph of layers"):
        distiller.fit(BATCHES, callbacks=[LayerDecay(0.5)], shuffle=False, verbose=0)


def two_inputs() -> keras.Model:
    one, two = keras.Input((4, 4, 3)), keras.Input((2,))
    flat = keras.layers.Concatenate()([keras.layers.Flatten()(one), two])
    return keras.Model([one, two], keras.layers.Dense(3, "softmax")(flat))


def constant() -> keras.Model:
    model = network(2)
    kernel, _ = model.layers[1].get_weights()
    model.layers[1].set_weights([np.zeros_like(kernel), np.array([0.1, 0.7], "float32")])
    return model


def hidden() -> keras.Model:
    pixels = keras.Input((4, 4, 3))
    return keras.Model(pixels, network(2)(pixels))


def without_dense() -> keras.Model:
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.GlobalAveragePooling2D(name="mean")(pixels)
    return keras.Model(pixels, keras.layers.Softmax(name="soft")(x))


def convolution_last() -> keras.Model:
    """A model whose only Dense layer is part of a gate."""
    pixels = keras.Input((4, 4, 3))
    gate = keras.layers.Dense(3, "sigmoid")(keras.layers.GlobalAveragePooling2D()(pixels))
    x = keras.layers.Multiply()([pixels, keras.layers.Reshape((1, 1, 3))(gate)])
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 1)(x))
    return keras.Model(pixels, keras.layers.Softmax()(x))


def other_end(units: int, activation: str | None, size: int = 4) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        pixels = keras.Input((size, size, 3))
        flat = keras.layers.Flatten()(pixels)
        return keras.Model(pixels, keras.layers.Dense(units, activation)(flat))

    return make


def wide() -> keras.Model:
    pixels = keras.Input((4, 4, 3))
    flat = keras.layers.Flatten()(keras.layers.Conv2D(300, 1)(pixels))
    return keras.Model(pixels, keras.layers.Dense(3, "softmax")(flat))


def half_of_a_split() -> keras.Model:
    pixels = keras.Input((4, 4, 3))
    _, half = keras.ops.split(keras.layers.Flatten()(pixels), 2, axis=-1)
    return keras.Model(pixels, keras.layers.Dense(3, "softmax", name="answers")(half))


def broken() -> keras.Model:
    model = network(2)
    model.layers[-1].bias.assign([np.nan] * 3)
    return model


def endless() -> Iterator[np.ndarray]:
    while True:
        yield np.repeat(IMAGES, 100, axis=0)


class Subclassed(keras.Model):
    """A model without a graph."""


PLAIN = partial(network, 3)


@pytest.mark.parametrize(
    ("student", "teacher", "settings", "message"),
    [
        (PLAIN, PLAIN, {"soft_target_weight": -1}, "soft_target_weight is out of range"),
        (PLAIN, PLAIN, {"layer": "hint"}, "the teacher has no layer 'hint' in its graph"),
        (PLAIN, PLAIN, {"layer": "pixels"}, "cannot be compared"),
        (PLAIN, without_dense, {}, r"no Dense layer at its end\n.*layer=.*\n.*mean, soft"),
        (PLAIN, convolution_last, {}, "the teacher has no Dense layer at its end"),
        (hidden, PLAIN, {}, "in the student cannot be compared"),
        (half_of_a_split, PLAIN, {}, "in the student cannot be compared"),
        (wide, wide, {}, "4800 and 4800 features are too many"),
        (two_inputs, PLAIN, {}, r"the student must map images.*\n.*\n.*2 inputs"),
        (PLAIN, two_inputs, {}, "the teacher must map images"),
        (other_end(5, "softmax"), PLAIN, {}, r"output shapes\n.*\(3,\).*\n.*\(5,\)"),
        (
            other_end(3, "softmax", 8),
            PLAIN,
            {"feature_weight": 0},
            "different input or output shapes",
        ),
        (PLAIN, other_end(3, None), {"feature_weight": 0}, "must return probabilities"),
        (PLAIN, other_end(3, "sigmoid"), {"feature_weight": 0}, "must return probabilities"),
        (*[other_end(1, "sigmoid")] * 2, {"feature_weight": 0}, "2 classes or more.*\n.*1 classes"),
        (PLAIN, broken, {}, "NaN or infinite: answers/bias"),
        (Subclassed, PLAIN, {}, "has no graph of layers"),
        (PLAIN, PLAIN, {"sample": []}, r"sample is too small.*\n.*\n.*0"),
        (PLAIN, PLAIN, {"sample": [IMAGES[:1]]}, r"sample is too small.*\n.*\n.*1"),
        (PLAIN, PLAIN, {"sample": IMAGES}, r"not consist of batches.*\n.*4 axes.*\n.*\(4, 4, 3\)"),
        (PLAIN, PLAIN, {"sample": endless()}, "sample is too large, or endless"),
        (PLAIN, PLAIN, {"sample": [IMAGES * np.nan]}, "broken images"),
    ],
)
def test_invalid_models_samples_and_layers_are_rejected(
    student: Any, teacher: Any, settings: dict[str, Any], message: str
) -> None:
    made = [make() for make in (student, teacher)]
    if settings.get("layer") == "pixels":
        settings = {"layer": made[1].layers[0].name}
    with pytest.raises(TrainingError, match=message):
        Distiller(*made, **{"sample": BATCHES, **settings})


def test_a_teacher_that_shares_trainable_weights_is_rejected() -> None:
    whole = network(3)
    with pytest.raises(TrainingError, match=r"share trainable weights: .*kernel"):
        Distiller(whole, whole, BATCHES)


def test_saving_a_distiller_is_rejected(tmp_path: Path) -> None:
    small = network(2)
    distiller = Distiller(small, network(4), BATCHES)
    with pytest.raises(TrainingError, match="save the student"):
        distiller.save(tmp_path / "distiller.keras")


def test_the_student_does_not_reference_its_teacher() -> None:
    small, whole = network(2), network(4)
    distiller = Distiller(small, whole, BATCHES)
    distiller(IMAGES, training=True)
    kept = weakref.ref(whole)
    del distiller, whole
    gc.collect()
    assert kept() is None
    assert small(IMAGES).shape == (12, 3)


@pytest.mark.parametrize("blind", ["student", "teacher"])
def test_constant_features_have_no_effect(blind: str) -> None:
    pair = (constant(), network(4)) if blind == "student" else (network(4), constant())
    distiller = Distiller(*pair, BATCHES)
    _, projected = distiller(IMAGES, training=True)
    np.testing.assert_allclose(projected, 0, atol=0.01)
    if blind == "teacher":
        np.testing.assert_allclose(distiller._targets(IMAGES)[1], 0, atol=0.01)


def test_one_batch_may_be_larger_than_a_sample_of_many() -> None:
    pixels = keras.Input((2,))
    model = keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(pixels))
    images = np.zeros((MOST_PHOTOS + 1, 2), np.float32)
    (predictions,) = last_outputs([images], model)
    assert predictions.shape == (MOST_PHOTOS + 1, 2)
    with pytest.raises(TrainingError, match="too large, or endless"):
        last_outputs([images, images[:1]], model)
