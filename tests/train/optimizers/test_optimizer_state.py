"""What the new optimizer inherits, against NumPy or separate training runs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.errors import TrainingError
from kpipe.train import AtEpoch, SwitchOptimizer
from tests.train import dense


def switched(
    old: keras.optimizers.Optimizer, new: keras.optimizers.Optimizer, epochs: int = 2, **compiling
) -> tuple[keras.Model, list[list[np.ndarray]]]:
    """A model that switched after one epoch, and its weights after each step."""
    model, weights = dense.model(old, **compiling), dense.Weights()
    dense.train(model, epochs, SwitchOptimizer(new, AtEpoch(1)), weights)
    return model, weights.seen


def close(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("weight_decay", 0.03),
        ("clipnorm", 0.3),
        ("clipvalue", 0.3),
        ("global_clipnorm", 0.3),
        ("loss_scale_factor", 8.0),
        ("ema_momentum", 0.9),
        ("gradient_accumulation_steps", 2),
    ],
)
def test_settings_are_copied_and_saved(setting, value, tmp_path) -> None:
    options = {setting: value, **({"use_ema": True} if setting == "ema_momentum" else {})}
    model, _ = switched(keras.optimizers.Adam(0.01, **options), keras.optimizers.SGD(0.1))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert type(loaded) is keras.optimizers.SGD
    assert getattr(loaded, setting) == getattr(model.optimizer, setting) == value
    assert len(loaded.variables) == len(model.optimizer.variables)


def test_settings_of_the_new_optimizer_take_precedence() -> None:
    old = keras.optimizers.AdamW(0.01, weight_decay=0.1, clipnorm=0.3, use_ema=True)
    new = keras.optimizers.SGD(0.1, weight_decay=0.0, clipvalue=0.5)
    optimizer = switched(old, new)[0].optimizer
    assert (optimizer.weight_decay, optimizer.clipvalue, optimizer.clipnorm) == (0.0, 0.5, None)


def test_decay_and_clipping_act_in_the_new_optimizer() -> None:
    old = keras.optimizers.Adam(0.01, weight_decay=0.5, global_clipnorm=0.1)
    old.exclude_from_weight_decay(var_names=["bias"])
    _, seen = switched(old, keras.optimizers.SGD(0.2))
    before = seen[dense.STEPS - 1]
    g = dense.gradient(before, dense.INPUTS[: dense.BATCH], dense.TARGETS[: dense.BATCH])
    norm = np.sqrt(sum((part**2).sum() for part in g))
    assert norm > 0.1
    shrink = [1 - 0.5 * 0.2, 1.0, 1 - 0.5 * 0.2, 1.0]
    expected = [w * s - 0.2 * d * 0.1 / norm for w, s, d in zip(before, shrink, g, strict=True)]
    close(seen[dense.STEPS], expected)


def test_exclusions_of_an_optimizer_that_is_switched_to_are_kept() -> None:
    new = keras.optimizers.SGD(0.2, weight_decay=0.5)
    new.exclude_from_weight_decay(var_names=["bias", "kernel"])
    _, seen = switched(keras.optimizers.Adam(0.01), new)
    before = seen[dense.STEPS - 1]
    g = dense.gradient(before, dense.INPUTS[: dense.BATCH], dense.TARGETS[: dense.BATCH])
    close(seen[dense.STEPS], [w - 0.2 * d for w, d in zip(before, g, strict=True)])


@pytest.mark.parametrize("execution", [1, 4])
def test_averages_continue_through_the_switch(execution) -> None:
    model, seen = switched(
        keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.8),
        keras.optimizers.SGD(0.3, momentum=0.9),
        steps_per_execution=execution,
    )
    if execution > 1:  # between, weights are not seen: take them from a training that shows them
        _, seen = switched(
            keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.8),
            keras.optimizers.SGD(0.3, momentum=0.9),
        )
    average = seen[0]
    for weights in seen[1:]:
        average = [0.8 * a + 0.2 * w for a, w in zip(average, weights, strict=True)]
    close(model.get_weights(), average)  # Keras puts them into the model as a fit ends


@pytest.mark.parametrize("batches", [3, 4], ids=["within a cycle", "between cycles"])
def test_accumulated_gradients_are_neither_lost_nor_counted_twice(batches) -> None:
    model, seen = switched(
        keras.optimizers.Adam(0.01, gradient_accumulation_steps=batches),
        keras.optimizers.SGD(0.5),
    )
    begun = dense.STEPS // batches * batches  # of the last update of the first epoch
    end = begun + batches
    before = seen[dense.STEPS - 1]
    rows = np.arange(begun * dense.BATCH, end * dense.BATCH) % len(dense.INPUTS)
    g = dense.gradient(before, dense.INPUTS[rows], dense.TARGETS[rows])
    close(seen[end - 2], before)
    close(seen[end - 1], [w - 0.5 * d for w, d in zip(before, g, strict=True)])
    assert int(model.optimizer.iterations) == 2 * dense.STEPS // batches - begun // batches


def test_another_accumulation_within_a_cycle_is_rejected() -> None:
    old = keras.optimizers.Adam(0.01, gradient_accumulation_steps=3)
    new = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    with pytest.raises(TrainingError, match="2 batches of gradients are accumulated"):
        switched(old, new)
    old = keras.optimizers.Adam(0.01, gradient_accumulation_steps=4)
    assert switched(old, new)[0].optimizer.gradient_accumulation_steps == 2


def test_the_loss_scale_is_copied(tmp_path) -> None:
    old = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01), initial_scale=16.0, dynamic_growth_steps=6
    )
    model, seen = switched(old, keras.optimizers.SGD(0.1, momentum=0.9))
    assert type(model.optimizer) is keras.optimizers.LossScaleOptimizer
    assert type(model.optimizer.inner_optimizer) is keras.optimizers.SGD
    # 16 steps double it twice; if the switch reset the counter, only once.
    assert float(model.optimizer.dynamic_scale) == 64.0
    assert int(model.optimizer.step_counter) == 2 * dense.STEPS - 12
    _, plain = switched(keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1, momentum=0.9))
    close(seen[-1], plain[-1])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_loss_scaling_continues_in_mixed_precision() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, seen = switched(keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1))
    finally:
        keras.config.set_dtype_policy("float32")
    assert type(model.optimizer) is keras.optimizers.LossScaleOptimizer
    assert float(model.optimizer.dynamic_scale) > 1
    assert not np.array_equal(seen[-1][0], seen[dense.STEPS][0])


def test_unsupported_optimizers_are_named() -> None:
    kind = keras.optimizers.ScheduleFreeAdamW
    with pytest.raises(TrainingError, match="ScheduleFreeAdamW"):
        switched(kind(0.01), keras.optimizers.SGD(0.1))
    with pytest.raises(TrainingError, match="ScheduleFreeAdamW"):
        switched(keras.optimizers.Adam(0.01), kind(0.1))
    with pytest.raises(TrainingError, match="loss scaling"):
        SwitchOptimizer(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), AtEpoch(1))
