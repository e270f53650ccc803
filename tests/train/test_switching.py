"""The switch in a plain `model.fit`, and the moments by themselves."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.errors import TrainingError
from kpipe.train import AtEpoch, OnPlateau, SwitchOptimizer

from . import tiny


def train(model: keras.Model, epochs: int, *callbacks, initial_epoch: int = 0) -> dict:
    return model.fit(
        tiny.data(initial_epoch),
        initial_epoch=initial_epoch,
        epochs=epochs,
        steps_per_epoch=tiny.STEPS,
        callbacks=list(callbacks),
        shuffle=False,
        verbose=0,
    ).history


def compiled(optimizer: keras.optimizers.Optimizer) -> keras.Model:
    model = tiny.model()
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def sgd() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(0.05, momentum=0.9)


def test_switched_training_equals_two_trainings_by_hand() -> None:
    switched = compiled(keras.optimizers.Adam(0.01))
    train(switched, 5, SwitchOptimizer(sgd(), AtEpoch(2)))
    by_hand = compiled(keras.optimizers.Adam(0.01))
    train(by_hand, 2)
    by_hand.compile(sgd(), "sparse_categorical_crossentropy")
    train(by_hand, 5, initial_epoch=2)
    assert tiny.same(tiny.values(switched), tiny.values(by_hand))


def test_the_history_marks_the_switch() -> None:
    callback = SwitchOptimizer(sgd(), AtEpoch(2))
    history = train(compiled(keras.optimizers.Adam(0.01)), 4, callback)
    assert history["switched"] == [0, 0, 1, 1]
    assert callback.switched_at == 2


def test_a_model_saved_after_the_switch_comes_back_with_the_new_optimizer(tmp_path) -> None:
    model = compiled(keras.optimizers.Adam(0.01))
    train(model, 3, SwitchOptimizer(sgd(), AtEpoch(1)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is keras.optimizers.SGD
    assert loaded.optimizer.momentum == 0.9
    assert int(loaded.optimizer.iterations) == 2 * tiny.STEPS
    for ours, theirs in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    # A .keras file leaves out the state of the dropout's seed.
    for ours, theirs in zip(model.variables, loaded.variables, strict=True):
        theirs.assign(ours)
    train(model, 4, initial_epoch=3)
    train(loaded, 4, initial_epoch=3)
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_second_fit_does_not_switch_again_unless_told() -> None:
    callback = SwitchOptimizer(sgd(), AtEpoch(1))
    model = compiled(keras.optimizers.Adam(0.01))
    train(model, 2, callback)
    optimizer = model.optimizer
    train(model, 2, callback)
    assert model.optimizer is optimizer
    callback.reset()
    train(model, 2, callback)
    assert model.optimizer is not optimizer


def test_one_callback_serves_two_models() -> None:
    optimizer = sgd()
    callback = SwitchOptimizer(optimizer, AtEpoch(0))
    first = compiled(keras.optimizers.Adam(0.01))
    train(first, 1, callback)
    callback.reset()
    second = compiled(keras.optimizers.Adam(0.01))
    train(second, 1, callback)
    assert tiny.same(tiny.values(first), tiny.values(second))
    assert not optimizer.built


def test_learning_rate_callbacks_act_on_the_new_optimizer() -> None:
    model = compiled(keras.optimizers.Adam(0.01))
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    train(model, 3, SwitchOptimizer(sgd(), AtEpoch(1)), schedule)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05 / 4)


def test_a_function_makes_the_optimizer_from_the_epoch() -> None:
    model = compiled(keras.optimizers.Adam(0.01))
    make = lambda epoch: keras.optimizers.SGD(0.1 / epoch)  # noqa: E731
    train(model, 3, SwitchOptimizer(make, AtEpoch(2)))
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("losses", "due"),
    [
        ([3, 2, 1], [False, False, False]),
        ([3, 3, 3], [False, False, True]),
        ([3, 2, 2, 1, 1, 1], [False, False, False, False, False, True]),
        ([3, 2.95, 2.92], [False, False, True]),  # less than min_delta each
        ([3, 2.95, 2.8], [False, False, False]),  # together more
    ],
)
def test_a_plateau_is_patience_epochs_without_improvement(losses, due) -> None:
    moment = OnPlateau("val_loss", patience=2, min_delta=0.1)
    state, got = moment.initial(), []
    for epoch, loss in enumerate(losses):
        state = moment.seen(state, {"val_loss": loss})
        got.append(moment.due(state, epoch + 1))
    assert got == due


def test_an_accuracy_improves_upward() -> None:
    moment = OnPlateau("val_accuracy", patience=1)
    state = moment.seen(moment.initial(), {"val_accuracy": 0.5})
    assert not moment.due(moment.seen(state, {"val_accuracy": 0.6}), 2)
    assert moment.due(moment.seen(state, {"val_accuracy": 0.4}), 2)


def test_a_plateau_switches_at_the_next_epoch() -> None:
    callback = SwitchOptimizer(sgd(), OnPlateau("loss", patience=1, min_delta=100.0))
    history = train(compiled(keras.optimizers.Adam(0.01)), 4, callback)
    assert history["switched"] == [0, 0, 1, 1]


def test_an_unknown_monitor_is_answered_with_what_there_is() -> None:
    callback = SwitchOptimizer("sgd", OnPlateau("val_loss"))
    with pytest.raises(TrainingError) as caught:
        train(compiled(keras.optimizers.Adam(0.01)), 2, callback)
    assert "accuracy, loss" in str(caught.value)


def test_a_misspelt_optimizer_is_refused_before_training() -> None:
    with pytest.raises(TrainingError, match="no optimizer"):
        SwitchOptimizer("sdg", AtEpoch(1))


def test_loss_scaling_is_refused_by_name() -> None:
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01))
    with pytest.raises(TrainingError, match="scales its loss"):
        train(compiled(scaled), 2, SwitchOptimizer(sgd(), AtEpoch(1)))
