"""Layer-wise learning rates against SGD, Adam and AdamW in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from kpipe.errors import TrainingError
from kpipe.train import SWATS, AtEpoch, LayerDecay, SwitchOptimizer, unfreeze
from tests.train.dense import Break, Broken

DECAY, RATE, STEPS = 0.5, 0.1, 3
DEPTHS = {"lower": 2, "upper": 1, "logits": 0}  # blocks above
PIXELS = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype("float32")
LABELS = np.array([0, 1, 0, 1])


def net() -> keras.Model:
    keras.utils.set_random_seed(1)
    pixels = keras.Input((3, 3, 2))
    x = keras.layers.Conv2D(3, 1, activation="tanh", name="lower")(pixels)
    x = keras.layers.Conv2D(3, 1, activation="tanh", name="upper")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, keras.layers.Dense(2, name="logits")(x))


def loss() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def gradients(model: keras.Model) -> list[np.ndarray]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss()(LABELS, model(PIXELS, training=True))
    found = tape.gradient(value, [v.value for v in model.trainable_variables])
    return [gradient.numpy() for gradient in found]


def sgd(rate: float, momentum: float = 0.9) -> Callable:
    state = {"m": 0.0}

    def update(weight: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        state["m"] = momentum * state["m"] - rate * gradient
        return weight + state["m"]

    return update


def adam(rate: float, weight_decay: float = 0.0) -> Callable:
    state = {"m": 0.0, "v": 0.0, "t": 0}

    def update(weight: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        state["t"] += 1
        weight = weight * (1 - rate * weight_decay)
        state["m"] = 0.9 * state["m"] + 0.1 * gradient
        state["v"] = 0.999 * state["v"] + 0.001 * gradient**2
        rising = rate * np.sqrt(1 - 0.999 ** state["t"]) / (1 - 0.9 ** state["t"])
        return weight - rising * state["m"] / (np.sqrt(state["v"]) + 1e-7)

    return update


def reference(start: list[np.ndarray], optimizer: Callable, steps: int) -> list[np.ndarray]:
    model = net()
    model.set_weights(start)
    factors = [DECAY ** DEPTHS[v.path.split("/")[0]] for v in model.trainable_variables]
    updates = [optimizer(RATE * factor) for factor in factors]
    for _ in range(steps):
        pairs = zip(updates, model.get_weights(), gradients(model), strict=True)
        model.set_weights([update(weight, gradient) for update, weight, gradient in pairs])
    return model.get_weights()


def fitted(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None, callbacks: list, epochs: int
) -> keras.Model:
    if optimizer is not None:
        model.compile(optimizer, loss())
    model.fit(PIXELS, LABELS, batch_size=4, epochs=epochs, callbacks=callbacks, verbose=0)
    return model


def close(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("optimizer", "plain"),
    [
        (lambda: keras.optimizers.SGD(RATE, momentum=0.9), sgd),
        (lambda: keras.optimizers.Adam(RATE), adam),
        (lambda: keras.optimizers.AdamW(RATE, weight_decay=0.2), lambda rate: adam(rate, 0.2)),
    ],
)
def test_each_block_trains_as_in_numpy(optimizer: Callable, plain: Callable) -> None:
    start = net().get_weights()
    model = fitted(net(), optimizer(), [LayerDecay(DECAY)], STEPS)
    close(model.get_weights(), reference(start, plain, STEPS))


@pytest.mark.parametrize("order", [1, -1])
def test_it_applies_to_the_new_optimizer_after_a_switch(order: int) -> None:
    switch = SwitchOptimizer(keras.optimizers.SGD(RATE, momentum=0.9), AtEpoch(2))
    callbacks = [switch, LayerDecay(DECAY)][::order]
    model = fitted(net(), keras.optimizers.Adam(RATE), callbacks, 2 + STEPS)
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    before = reference(net().get_weights(), adam, 2)
    close(model.get_weights(), reference(before, sgd, STEPS))


def test_it_applies_to_a_learning_rate_set_by_a_callback() -> None:
    halved = keras.callbacks.LearningRateScheduler(lambda epoch: RATE)
    model = fitted(net(), keras.optimizers.SGD(9.0), [halved, LayerDecay(DECAY)], 1)
    close(model.get_weights(), reference(net().get_weights(), lambda r: sgd(r, 0.0), 1))


def test_the_next_fit_without_it_has_no_decay() -> None:
    model = fitted(net(), keras.optimizers.SGD(RATE), [LayerDecay(DECAY)], 1)
    start, gradient = model.get_weights(), gradients(model)
    fitted(model, None, [], 1)
    close(model.get_weights(), [w - RATE * g for w, g in zip(start, gradient, strict=True)])


def test_the_saved_model_holds_a_plain_optimizer(tmp_path: Path) -> None:
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    model = fitted(net(), keras.optimizers.Adam(RATE), [LayerDecay(DECAY), saving], 2)
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert int(loaded.optimizer.iterations) == 2
    for one, other in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_frozen_layers_count_as_depth_and_do_not_change() -> None:
    model = net()
    unfreeze(model, 1)
    rates = LayerDecay(DECAY)
    assert rates.factors(model) == {name: DECAY**above for name, above in DEPTHS.items()}
    start = model.get_weights()
    fitted(model, keras.optimizers.SGD(RATE, momentum=0.9), [rates], STEPS)
    moved = [not np.array_equal(a, b) for a, b in zip(start, model.get_weights(), strict=True)]
    assert moved == [False, False, True, True, True, True]


def test_the_backbone_has_a_factor_of_its_own() -> None:
    assert LayerDecay(1.0, backbone=0.1).factors(net()) == {"lower": 0.1, "upper": 0.1, "logits": 1}
    start = net().get_weights()
    model = fitted(net(), keras.optimizers.SGD(RATE), [LayerDecay(1.0, backbone=0.1)], 1)
    rates = [0.1 * RATE] * 4 + [RATE] * 2
    steps = zip(start, rates, gradients(net()), strict=True)
    close(model.get_weights(), [w - rate * g for w, rate, g in steps])
    with pytest.raises(TrainingError, match="backbone is out of range"):
        LayerDecay(0.5, backbone=0.0)


@pytest.mark.parametrize("decay", [0.0, 1.5, float("nan")])
def test_a_decay_out_of_range_is_rejected(decay: float) -> None:
    with pytest.raises(TrainingError, match="decay is out of range"):
        LayerDecay(decay)


def test_an_interrupted_fit_does_not_scale_the_next_one_twice() -> None:
    model = net()
    optimizer = keras.optimizers.SGD(RATE)
    with pytest.raises(Broken):
        fitted(model, optimizer, [LayerDecay(DECAY), Break(1)], 2)
    start = model.get_weights()
    fitted(model, None, [LayerDecay(DECAY)], 1)
    close(model.get_weights(), reference(start, lambda r: sgd(r, 0.0), 1))


def test_a_layer_of_a_nested_model_may_share_its_name_with_the_head() -> None:
    inner_pixels = keras.Input((3, 3, 2))
    inner = keras.Model(inner_pixels, keras.layers.Conv2D(3, 1, name="logits")(inner_pixels))
    pixels = keras.Input((3, 3, 2))
    x = keras.layers.GlobalAveragePooling2D()(inner(pixels))
    model = keras.Model(pixels, keras.layers.Dense(2, name="logits")(x))
    start, gradient = model.get_weights(), gradients(model)
    fitted(model, keras.optimizers.SGD(RATE), [LayerDecay(DECAY)], 1)
    factors = [DECAY, DECAY, 1, 1]
    expected = [w - RATE * f * g for w, f, g in zip(start, factors, gradient, strict=True)]
    close(model.get_weights(), expected)


def test_swats_estimates_the_learning_rate_before_decay() -> None:
    found = []
    for decay in (1.0, 0.1):
        model = net()
        for name in ("upper", "logits"):
            model.get_layer(name).trainable = False
        model.compile(keras.optimizers.Adam(RATE), loss())
        switch = SwitchOptimizer("sgd", SWATS(1e-12))
        with pytest.warns(UserWarning, match="did not switch"):
            history = model.fit(
                PIXELS,
                LABELS,
                batch_size=4,
                callbacks=[LayerDecay(decay), switch],
                verbose=0,
            ).history
        found.append(history["swats_rate"][0])
    # One step from the same weights; Adam's first does not depend on the gradient's length.
    assert found[1] == pytest.approx(found[0], rel=1e-4)
