"""The optimizer switch in `model.fit`."""

from __future__ import annotations

import h5py
import keras
import numpy as np
import pytest

from kpipe.errors import TrainingError
from kpipe.train import SWATS, AtEpoch, OnPlateau, SwitchOptimizer
from tests.train import dense, tiny


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


def test_a_model_saved_after_the_switch_loads_with_the_new_optimizer(tmp_path) -> None:
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


def test_a_second_fit_does_not_switch_again_without_reset() -> None:
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


def test_a_function_creates_the_optimizer_from_the_epoch() -> None:
    model = compiled(keras.optimizers.Adam(0.01))
    make = lambda epoch: keras.optimizers.SGD(0.1 / epoch)  # noqa: E731
    train(model, 3, SwitchOptimizer(make, AtEpoch(2)))
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)


def test_a_plateau_switches_at_the_next_epoch() -> None:
    callback = SwitchOptimizer(sgd(), OnPlateau("loss", patience=1, min_delta=100.0))
    history = train(compiled(keras.optimizers.Adam(0.01)), 4, callback)
    assert history["switched"] == [0, 0, 1, 1]


def test_the_error_of_an_unknown_monitor_lists_the_logs() -> None:
    callback = SwitchOptimizer("sgd", OnPlateau("los"))
    with (
        pytest.warns(UserWarning, match="monitors 'los'"),
        pytest.raises(TrainingError) as caught,
    ):
        train(compiled(keras.optimizers.Adam(0.01)), 2, callback)
    assert "accuracy, loss" in str(caught.value)


def test_epochs_without_validation_do_not_count() -> None:
    model = compiled(keras.optimizers.Adam(0.01))
    callback = SwitchOptimizer("sgd", OnPlateau("val_loss", patience=1, min_delta=100.0))
    with pytest.warns(UserWarning, match="'val_loss', which this epoch did not report"):
        history = model.fit(
            tiny.data(0),
            epochs=6,
            steps_per_epoch=tiny.STEPS,
            validation_data=tiny.validation(),
            validation_freq=2,
            callbacks=[callback],
            shuffle=False,
            verbose=0,
        ).history
    # Validated after the second and the fourth epoch; the latter was no better.
    assert history["switched"] == [0, 0, 0, 0, 1, 1]


def test_a_function_for_swats_receives_its_choices() -> None:
    SwitchOptimizer(lambda epoch, **chosen: keras.optimizers.SGD(**chosen), SWATS())


@pytest.mark.slow
def test_a_second_fit_after_another_compile_starts_its_own_averages() -> None:
    model = compiled(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9))
    switch = SwitchOptimizer(sgd(), AtEpoch(1))
    train(model, 2, switch)
    before = [v.numpy() for v in model.trainable_variables]
    still = keras.optimizers.SGD(1e-9, use_ema=True, ema_momentum=0.9)
    model.compile(still, "sparse_categorical_crossentropy", metrics=["accuracy"])
    train(model, 1, switch)
    for one, other in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-6)


def test_a_misspelt_optimizer_is_rejected_before_training() -> None:
    with pytest.raises(TrainingError, match="no optimizer"):
        SwitchOptimizer("sdg", AtEpoch(1))


@pytest.mark.slow
def test_a_function_that_returns_one_optimizer_twice_is_rejected() -> None:
    optimizer = sgd()
    callback = SwitchOptimizer(lambda epoch: optimizer, AtEpoch(1))
    train(compiled(keras.optimizers.Adam(0.01)), 2, callback)
    callback.reset()
    with pytest.raises(TrainingError, match="has already trained"):
        train(compiled(keras.optimizers.Adam(0.01)), 2, callback)


@pytest.mark.slow
@pytest.mark.parametrize(
    "compiling", [{"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 4}]
)
def test_it_switches_however_the_model_runs(compiling) -> None:
    plain = dense.model(keras.optimizers.Adam(0.01))
    dense.train(plain, 3, SwitchOptimizer(sgd(), AtEpoch(1)))
    with dense.free_order():
        model = dense.model(keras.optimizers.Adam(0.01), **compiling)
        assert model.jit_compile == compiling.get("jit_compile", False)
        dense.train(model, 3, SwitchOptimizer(sgd(), AtEpoch(1)))
    assert int(model.optimizer.iterations) == 2 * dense.STEPS
    for one, other in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


MOMENTS = {"epoch": AtEpoch(2), "plateau": OnPlateau("loss", patience=2, min_delta=100.0)}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param((1, 3), id="before", marks=pytest.mark.slow),
        pytest.param((2, 0), id="at"),
        pytest.param((4, 1), id="after", marks=pytest.mark.slow),
    ],
)
def test_backup_and_restore_resumes_with_the_right_optimizer(tmp_path, moment, broken) -> None:
    def run(*callbacks) -> keras.Model:
        options = {"use_ema": True, "ema_momentum": 0.9, "gradient_accumulation_steps": 3}
        model = dense.model(keras.optimizers.Adam(0.01, **options))
        switch = SwitchOptimizer(sgd(), MOMENTS[moment])
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        dense.train(model, 5, switch, backup, *callbacks)
        return model

    whole = run()
    with pytest.raises(dense.Broken):
        run(dense.Break(*broken))
    resumed = run()
    assert type(resumed.optimizer) is keras.optimizers.SGD
    assert tiny.same(whole.get_weights(), resumed.get_weights())
    for one, two in zip(whole.optimizer.variables, resumed.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


ORDERS = {
    "in the order of the list": (AtEpoch(1), AtEpoch(3)),
    "in another order": (AtEpoch(3), AtEpoch(1)),
    "in one epoch": (AtEpoch(1), AtEpoch(1)),
    "one of them never": (AtEpoch(1), AtEpoch(9)),
}


@pytest.mark.filterwarnings("ignore:AtEpoch")
@pytest.mark.parametrize(
    ("order", "broken"),
    [
        ("in another order", (2, 0)),
        *(
            pytest.param(order, broken, marks=pytest.mark.slow)
            for order, broken in [
                ("in the order of the list", (2, 0)),
                ("in another order", (1, 3)),
                ("in another order", (4, 1)),
                ("in one epoch", (1, 3)),
                ("one of them never", (4, 1)),
            ]
        ),
    ],
)
def test_two_switches_resume_bit_for_bit(tmp_path, order: str, broken) -> None:
    def run(*callbacks) -> keras.Model:
        model = dense.model(
            keras.optimizers.AdamW(0.01, weight_decay=0.1, use_ema=True, ema_momentum=0.9)
        )
        second = keras.optimizers.RMSprop(0.01, weight_decay=0.2)
        switches = [
            SwitchOptimizer(*each) for each in zip((sgd(), second), ORDERS[order], strict=True)
        ]
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        dense.train(model, 5, *switches, backup, *callbacks)
        return model

    whole = run()
    with pytest.raises(dense.Broken):
        run(dense.Break(*broken))
    resumed = run()
    assert type(resumed.optimizer) is type(whole.optimizer)
    assert resumed.optimizer.weight_decay == whole.optimizer.weight_decay
    assert tiny.same(whole.get_weights(), resumed.get_weights())
    for one, two in zip(whole.optimizer.variables, resumed.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


def test_weights_of_one_switch_from_an_earlier_version_are_read(tmp_path) -> None:
    """Its place in the file is the same, alone or as the first of two."""
    path = tmp_path / "1.weights.h5"
    saving = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    model = dense.model(keras.optimizers.Adam(0.01))
    dense.train(model, 2, SwitchOptimizer(sgd(), AtEpoch(1)), saving)
    with h5py.File(path) as file:
        assert list(file["kpipe_switch/vars"]) == ["state"]

    class Load(keras.callbacks.Callback):
        def on_train_begin(self, logs=None) -> None:
            self.model.load_weights(path)

    again = dense.model(keras.optimizers.Adam(0.01))
    switches = [SwitchOptimizer(sgd(), AtEpoch(1)), SwitchOptimizer("rmsprop", AtEpoch(3))]
    dense.train(again, 4, *switches, Load(), initial_epoch=2)
    assert [switch.switched_at for switch in switches] == [1, 3]
    assert type(again.optimizer) is keras.optimizers.RMSprop
    assert int(again.optimizer.iterations) == dense.STEPS


def test_a_backup_of_more_switches_is_refused(tmp_path) -> None:
    def run(count: int, *callbacks) -> None:
        switches = [SwitchOptimizer(sgd(), AtEpoch(1 + number)) for number in range(count)]
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        dense.train(dense.model(keras.optimizers.Adam(0.01)), 4, *switches, backup, *callbacks)

    with pytest.raises(dense.Broken):
        run(2, dense.Break(3))
    # Keras collects the errors of loading in one of its own.
    with pytest.raises(ValueError, match="more SwitchOptimizers"):
        run(1)


def test_an_interrupted_fit_leaves_no_state_to_the_next(tmp_path) -> None:
    model, path = dense.model(keras.optimizers.Adam(0.01)), tmp_path / "1.weights.h5"
    with pytest.raises(dense.Broken):
        dense.train(model, 3, SwitchOptimizer(sgd(), AtEpoch(2)), dense.Break(1))
    saving = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    dense.train(model, 2, SwitchOptimizer(sgd(), AtEpoch(1)), saving)
    with h5py.File(path) as file:
        assert list(file["kpipe_switch/vars"]) == ["state"]
        assert b'"switched_at": 1' in file["kpipe_switch/vars/state"][()].tobytes()


@pytest.mark.parametrize("moment", [AtEpoch(3), AtEpoch(9), OnPlateau("loss", patience=9)])
def test_a_switch_that_never_came_warns(moment) -> None:
    with pytest.warns(UserWarning, match=rf"{type(moment).__name__}.*did not switch") as caught:
        dense.train(dense.model(keras.optimizers.Adam(0.01)), 3, SwitchOptimizer(sgd(), moment))
    assert len(caught) == 1


def test_early_stopping_before_the_switch_warns() -> None:
    stop = keras.callbacks.EarlyStopping("loss", min_delta=100.0, patience=1)
    with pytest.warns(UserWarning, match=r"AtEpoch\(epoch=4\) did not switch"):
        dense.train(
            dense.model(keras.optimizers.Adam(0.01)), 9, SwitchOptimizer(sgd(), AtEpoch(4)), stop
        )


def test_a_backup_before_the_switch_callback_warns(tmp_path) -> None:
    def run(*callbacks) -> None:
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        switch = SwitchOptimizer(sgd(), OnPlateau("loss"))
        dense.train(dense.model(keras.optimizers.Adam(0.01)), 3, backup, switch, *callbacks)

    with pytest.raises(dense.Broken):
        run(dense.Break(2))
    with (
        pytest.warns(UserWarning, match="list SwitchOptimizer before BackupAndRestore"),
        pytest.warns(UserWarning, match="did not switch"),
    ):
        run()


def test_a_model_saved_during_the_fit_loads_as_usual(tmp_path) -> None:
    model = dense.model(keras.optimizers.Adam(0.01))
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    dense.train(model, 3, SwitchOptimizer(sgd(), AtEpoch(1)), saving)
    kinds = []
    for epoch in (1, 2, 3):
        loaded = keras.models.load_model(tmp_path / f"{epoch}.keras")
        kinds.append(type(loaded.optimizer))
        assert int(loaded.optimizer.iterations) == dense.STEPS * max(1, epoch - 1)
    assert kinds == [keras.optimizers.Adam, keras.optimizers.SGD, keras.optimizers.SGD]
    dense.train(loaded, 4, initial_epoch=3)
    dense.train(model, 4, initial_epoch=3)
    assert tiny.same(model.get_weights(), loaded.get_weights())


def test_loading_older_weights_keeps_the_new_optimizer(tmp_path) -> None:
    model = dense.model(keras.optimizers.Adam(0.01))
    switch = SwitchOptimizer(sgd(), AtEpoch(1))
    saving = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.weights.h5", save_weights_only=True
    )

    class Back(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None) -> None:
            if epoch == 2:
                # Keras warns that it skips the optimizer.
                with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
                    self.model.load_weights(tmp_path / "1.weights.h5")

    dense.train(model, 3, switch, saving, Back())
    assert switch.switched_at == 1
    assert type(model.optimizer) is keras.optimizers.SGD


def test_the_callback_leaves_no_trace_in_the_model(tmp_path) -> None:
    switched, plain = (dense.model(keras.optimizers.Adam(0.01)) for _ in range(2))
    dense.train(switched, 2, SwitchOptimizer(sgd(), AtEpoch(1)))
    dense.train(plain, 2)
    assert set(switched.__dict__) == set(plain.__dict__)
