"""What trains, and that what is frozen stays as it is."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.errors import TrainingError
from kpipe.train import backbone, classifier, unfreeze

from . import tiny


def trained(last: int | None) -> tuple[keras.Model, dict[str, bool], list[str]]:
    """The tiny model after one epoch, which of its weights moved, and what was said to train."""
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
        (1, ["logits"]),  # the last layer of the backbone is an activation
        (2, ["norm", "logits"]),
        (3, ["conv", "norm", "logits"]),
        (None, ["conv", "norm", "logits"]),
    ],
)
def test_exactly_the_named_layers_move(last: int | None, names: list[str]) -> None:
    _, moved, said = trained(last)
    assert said == names
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
    assert unfreeze(model, None) == ["conv", "norm", "logits"]
    assert unfreeze(model, 0) == ["logits"]


def test_the_head_of_a_classifier_always_trains() -> None:
    base = backbone("MobileNetV2", image_size=32, weights=None, alpha=0.35)
    model = classifier(base, 3)
    assert unfreeze(model, 0) == ["head_logits"]
    assert unfreeze(model, 3) == ["Conv_1", "Conv_1_bn", "head_logits"]


@pytest.mark.parametrize("last", [-1, 7])
def test_an_impossible_number_is_refused(last: int) -> None:
    with pytest.raises(TrainingError, match="cannot unfreeze"):
        unfreeze(tiny.model(), last)
