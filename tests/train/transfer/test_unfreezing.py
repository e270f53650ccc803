"""Unfreezing: which layers train, and that frozen ones do not change."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.errors import TrainingError
from kpipe.train import (
    TrainableLayers,
    backbone,
    classifier,
    frozen_output,
    plan_unfreezing,
    unfreeze,
)
from tests.train import tiny


def trained(last: int | None) -> tuple[keras.Model, dict[str, bool], TrainableLayers]:
    """Return the tiny model after one epoch, which weights changed, and the trainable layers."""
    model = tiny.model()
    names = unfreeze(model, last)
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    model.fit(tiny.data(0), steps_per_epoch=tiny.STEPS, epochs=1, shuffle=False, verbose=0)
    after = model.get_weights()
    moved = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    return model, dict(zip([v.path for v in model.weights], moved, strict=True)), names


@pytest.mark.parametrize(
    ("last", "names"),
    [
        (0, ["logits"]),
        (1, ["conv", "norm", "logits"]),  # a convolution and its normalization are one
        (3, ["conv", "norm", "logits"]),
        (None, ["conv", "norm", "logits"]),
    ],
)
def test_exactly_the_named_layers_train(last: int | None, names: list[str]) -> None:
    _, moved, said = trained(last)
    assert list(said) == names
    assert {path.split("/")[0] for path, has_moved in moved.items() if has_moved} == set(names)


def test_frozen_normalization_keeps_its_statistics_and_uses_them() -> None:
    _, moved, _ = trained(0)
    assert not moved["norm/moving_mean"]
    assert not moved["norm/moving_variance"]
    model = tiny.model()
    unfreeze(model, 0)
    under = keras.Model(model.input, model.get_layer("norm").output)
    np.testing.assert_array_equal(
        under(tiny.IMAGES, training=True).numpy(), under(tiny.IMAGES, training=False).numpy()
    )


def test_unfreezing_again_starts_from_scratch() -> None:
    model = tiny.model()
    unfreeze(model, 0)
    assert list(unfreeze(model, None)) == ["conv", "norm", "logits"]
    assert list(unfreeze(model, 0)) == ["logits"]


def test_the_head_of_a_classifier_always_trains() -> None:
    base = backbone("MobileNetV2", image_size=32, weights=None, alpha=0.35)
    model = classifier(base, 3)
    assert list(unfreeze(model, 0)) == ["head_logits"]
    assert list(unfreeze(model, 3)) == ["Conv_1", "Conv_1_bn", "head_logits"]


@pytest.mark.parametrize("last", [-1, 7])
def test_an_invalid_number_is_rejected(last) -> None:
    with pytest.raises(TrainingError, match="cannot unfreeze"):
        unfreeze(tiny.model(), last)


def test_the_result_reports_requested_and_trainable_layers() -> None:
    base = backbone("MobileNetV2", image_size=32, weights=None, alpha=0.35)
    said = unfreeze(classifier(base, 3), 4)
    assert (said.requested, said.last, said.backbone_layers) == (4, 11, 155)
    assert said[0] == "block_16_expand"
    assert str(said).startswith("the head and the last 11 of 155 layers train, 4 requested")


def nested() -> keras.Model:
    """A backbone called as one layer, with normalization and dropout inside."""
    whole = tiny.model()
    base = keras.Model(
        whole.input, keras.layers.Dropout(0.5, seed=1)(whole.get_layer("relu").output)
    )
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(base(pixels))
    x = keras.layers.Dense(tiny.CLASSES, name="logits")(x)
    return keras.Model(pixels, keras.layers.Softmax()(x))


def test_a_frozen_nested_backbone_does_not_change() -> None:
    model = nested()
    assert list(unfreeze(model, 0)) == ["logits"]
    base = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    before = base.get_weights()
    np.testing.assert_array_equal(
        base(tiny.IMAGES, training=True).numpy(), base(tiny.IMAGES, training=False).numpy()
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(tiny.data(0), steps_per_epoch=tiny.STEPS, shuffle=False, verbose=0)
    for one, other in zip(before, base.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert list(unfreeze(model)) == ["conv", "norm", "logits"]
    drawn = base(tiny.IMAGES, training=True).numpy()
    assert not np.array_equal(drawn, base(tiny.IMAGES, training=False).numpy())


def test_phases_start_at_blocks_and_end_as_requested() -> None:
    base = backbone("MobileNetV2", image_size=32, weights=None, alpha=0.35)
    model = classifier(base, 3)
    assert plan_unfreezing(model, 3, last=12) == (0, 11, 20)
    assert plan_unfreezing(model, 2) == (0, 155)
    for last in plan_unfreezing(model, 5):
        assert unfreeze(model, last).last == last
    with pytest.raises(TrainingError, match="in 20 phases"):
        plan_unfreezing(model, 20)


def test_the_frozen_part_ends_where_training_begins() -> None:
    model = tiny.model()
    unfreeze(model, 0)
    assert frozen_output(model) is model.get_layer("pool").output  # not behind the head's dropout
    unfreeze(model)
    assert frozen_output(model) is model.layers[1].output  # the rescaled pixels
    model = nested()
    unfreeze(model, 0)
    assert frozen_output(model) is model.get_layer("pool").output


def test_normalization_stays_frozen_where_asked() -> None:
    model = tiny.model()
    assert list(unfreeze(model, freeze_norm=True)) == ["conv", "logits"]
    norm = model.get_layer("norm")
    before = norm.get_weights()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(tiny.data(0), steps_per_epoch=tiny.STEPS, shuffle=False, verbose=0)
    for one, other in zip(before, norm.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert "norm" in list(unfreeze(model))

    outer = nested()
    unfreeze(outer, freeze_norm=True)
    (inner,) = (layer for layer in outer.layers if isinstance(layer, keras.Model))
    assert not inner.get_layer("norm").trainable and inner.get_layer("conv").trainable
