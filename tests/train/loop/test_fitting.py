"""An interrupted and resumed training run ends like an uninterrupted one."""

from __future__ import annotations

import dataclasses
import errno
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.train import AtEpoch, FitResult, OnPlateau, SwitchOptimizer, TrainingConfig, fit
from kpipe.train.loop import checkpoint
from kpipe.train.loop import non_finite as finiteness
from tests.train import tiny
from tests.train.trainings import SWITCHING as CONFIG


class Cut(BaseException):
    """An interruption that nothing catches."""


class CutAt(keras.callbacks.Callback):
    """Interrupts before a batch, counted from the start of the training."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        if self.epoch * tiny.STEPS + batch == self.batch:
            raise Cut


class Poison(keras.callbacks.Callback):
    """Breaks a weight in one epoch, before or after its batches."""

    def __init__(self, epoch: int, *, at_end: bool) -> None:
        super().__init__()
        self.moment = (epoch, at_end)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.poison(epoch, False)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.poison(epoch, True)

    def poison(self, epoch: int, at_end: bool) -> None:
        if (epoch, at_end) == self.moment:
            self.model.get_layer("logits").bias.assign([np.nan, 0, 0])


def run(
    folder: Path | None = None, *callbacks, config: TrainingConfig = CONFIG, validate: bool = True
) -> tuple[FitResult, list[np.ndarray], keras.Model]:
    model = tiny.model()
    data = tiny.training_data(tiny.data, tiny.validation() if validate else None)
    result = fit(model, data, config, folder=folder, callbacks=callbacks)
    return result, tiny.values(model), model


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[FitResult, list[np.ndarray], keras.Model]:
    return run()


def test_a_folder_changes_nothing(uninterrupted, tmp_path: Path) -> None:
    result, values, _ = run(tmp_path)
    assert tiny.same(values, uninterrupted[1])
    assert dataclasses.replace(result, resumed_at=0) == uninterrupted[0]


@pytest.mark.slow
def test_interruptions_do_not_change_a_bit(tmp_path: Path) -> None:
    _, whole, whole_model = run(tmp_path / "whole")
    for batch in (1, 12, 14, 23):  # the switch is at batch 12
        with pytest.raises(Cut):
            run(tmp_path / "cut", CutAt(batch))
    result, values, model = run(tmp_path / "cut")
    assert result.resumed_at == 5
    assert tiny.same(values, whole)
    assert tiny.same(
        [v.numpy() for v in model.optimizer.variables],
        [v.numpy() for v in whole_model.optimizer.variables],
    )


def test_a_resumed_training_has_the_whole_history(uninterrupted, tmp_path: Path) -> None:
    with pytest.raises(Cut):
        run(tmp_path, CutAt(14))
    result, _, _ = run(tmp_path)
    assert result.resumed_at == 3
    assert result.history == uninterrupted[0].history
    assert result.switched_at == uninterrupted[0].switched_at == 3


@pytest.mark.slow
@pytest.mark.parametrize("batch", [9])
def test_a_plateau_is_counted_across_an_interruption(batch: int, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, switch_when=OnPlateau(patience=2, min_delta=0.2))
    whole = run(config=config)
    assert whole[0].switched_at is not None
    with pytest.raises(Cut):
        run(tmp_path, CutAt(batch), config=config)
    result, values, _ = run(tmp_path, config=config)
    assert result.switched_at == whole[0].switched_at
    assert tiny.same(values, whole[1])


def test_keras_callbacks_continue_across_an_interruption(tmp_path: Path) -> None:
    def callbacks():
        return (
            keras.callbacks.ReduceLROnPlateau("loss", patience=2, min_delta=10.0, factor=0.5),
            keras.callbacks.EarlyStopping("loss", patience=4, min_delta=10.0),
        )

    config = TrainingConfig(epochs=8, optimizer="sgd", learning_rate=0.05)
    whole, whole_values, _ = run(None, *callbacks(), config=config)
    assert len(whole.history["loss"]) == 5  # stopped early
    with pytest.raises(Cut):
        run(tmp_path, *callbacks(), CutAt(3 * tiny.STEPS + 1), config=config)
    result, values, _ = run(tmp_path, *callbacks(), config=config)
    assert result.history == whole.history
    assert tiny.same(values, whole_values)
    again, _, _ = run(tmp_path, *callbacks(), config=config)
    assert (again.resumed_at, again.history) == (5, whole.history)


def test_two_switches_among_the_callbacks_continue_across_an_interruption(tmp_path: Path) -> None:
    """Each has its own place in the checkpoint: the second switch waits for its own epoch."""

    def switches() -> tuple[SwitchOptimizer, SwitchOptimizer]:
        momentum = keras.optimizers.SGD(0.05, momentum=0.9)
        return SwitchOptimizer(momentum, AtEpoch(1)), SwitchOptimizer("rmsprop", AtEpoch(3))

    config = TrainingConfig(epochs=5, learning_rate=0.01)
    _, whole, model = run(None, *switches(), config=config)
    assert type(model.optimizer) is keras.optimizers.RMSprop
    with pytest.raises(Cut):
        run(tmp_path, *switches(), CutAt(2 * tiny.STEPS + 1), config=config)
    again = switches()
    _, values, resumed = run(tmp_path, *again, config=config)
    assert [switch.switched_at for switch in again] == [1, 3]
    assert tiny.same(values, whole)
    for one, two in zip(model.optimizer.variables, resumed.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    first, values, _ = run(tmp_path)
    again, same_values, _ = run(tmp_path, CutAt(0))
    assert again.resumed_at == CONFIG.epochs
    assert tiny.same(values, same_values)
    assert again.history == first.history


def test_the_best_epoch_is_left_in_the_model(tmp_path: Path) -> None:
    config = TrainingConfig(epochs=4, optimizer="sgd")
    rates = [0.01, 0.01, 50.0, 50.0]  # so high at last that it gets worse
    for folder in (None, tmp_path):
        schedule = keras.callbacks.LearningRateScheduler(lambda epoch: rates[epoch])
        result, _, model = run(folder, schedule, config=config)
        losses = result.history["val_loss"]
        assert result.best_epoch == int(np.argmin(losses)) < 3
        got = model.evaluate(tiny.validation(), verbose=0)[0]
        assert got == pytest.approx(losses[result.best_epoch], rel=1e-5)


def test_without_validation_the_last_epoch_is_kept(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        assert run(folder, validate=False)[0].best_epoch == CONFIG.epochs - 1


def test_only_the_last_and_the_best_checkpoint_stay(tmp_path: Path) -> None:
    result, _, _ = run(tmp_path)
    expected = {result.best_epoch, CONFIG.epochs - 1}
    assert set(checkpoint.epochs_in(tmp_path)) == expected
    assert len(list(tmp_path.iterdir())) == len(expected)


@pytest.mark.slow
@pytest.mark.parametrize(("at_end", "said"), [(False, "the loss is nan"), (True, "logits/bias")])
def test_a_nan_loss_stops_training_and_keeps_the_last_checkpoint(
    at_end: bool, said: str, tmp_path: Path, uninterrupted, monkeypatch
) -> None:
    if at_end:  # the poison comes with the last update of the epoch
        check = finiteness.TerminateOnNonFinite.on_epoch_end
        poison = Poison(2, at_end=True)
        monkeypatch.setattr(
            finiteness.TerminateOnNonFinite,
            "on_epoch_end",
            lambda self, epoch, logs=None: (
                poison.set_model(self.model),
                poison.on_epoch_end(epoch),
                check(self, epoch, logs),
            ),
        )
        callbacks = []
    else:
        callbacks = [Poison(2, at_end=False)]
    with pytest.raises(TrainingError, match=said):
        run(tmp_path, *callbacks)
    monkeypatch.undo()
    assert checkpoint.epochs_in(tmp_path)[-1] == 1
    assert tiny.same(run(tmp_path)[1], uninterrupted[1])


def test_a_full_disk_keeps_the_previous_checkpoint(
    tmp_path: Path, uninterrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = np.savez
    calls = []

    def full(file, **arrays):
        calls.append(1)
        if len(calls) == 3:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path)
    assert checkpoint.epochs_in(tmp_path)[-1] == 1
    assert not list(tmp_path.glob(".*"))
    assert tiny.same(run(tmp_path)[1], uninterrupted[1])


def test_a_damaged_checkpoint_is_warned_about_and_trained_again(
    tmp_path: Path, uninterrupted
) -> None:
    with pytest.raises(Cut):
        run(tmp_path, CutAt(14))
    newest = tmp_path / "epoch-00002.npz"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="epoch-00002"):
        result, values, _ = run(tmp_path)
    assert result.resumed_at < 3
    assert tiny.same(values, uninterrupted[1])


def test_damage_anywhere_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    run(tmp_path, config=TrainingConfig(epochs=1))
    path = tmp_path / "epoch-00000.npz"
    content, sound = path.read_bytes(), checkpoint.read(tmp_path, 0)
    random = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[random.integers(len(content))] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            found = checkpoint.read(tmp_path, 0)
        except TrainingError:
            continue
        assert tiny.same(found.model + found.optimizer, sound.model + sound.optimizer)
        assert found.record == sound.record


def test_a_folder_of_another_training_is_rejected(tmp_path: Path) -> None:
    run(tmp_path, config=TrainingConfig(epochs=1))
    with pytest.raises(TrainingError, match="another training: plan"):
        run(tmp_path, config=TrainingConfig(epochs=1, learning_rate=0.5))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"optimizer": "adm"},
        {"learning_rate": 0.0},
        {"schedule": "cosin"},
        {"switch_to": "sgd", "switch_when": None},
        {"switch_to": None},
        {"switch_to": "sdg"},
    ],
)
def test_an_invalid_config_is_rejected_at_once(wrong: dict) -> None:
    with pytest.raises(TrainingError):
        dataclasses.replace(CONFIG, **wrong)


@pytest.mark.slow
def test_a_killed_process_resumes_bit_identical(uninterrupted, tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    # Of about 75 operations an epoch: in the second or third.
    command = [sys.executable, "-m", "tests.train.killed", str(tmp_path), "switching", "400"]
    done = subprocess.run(command, cwd=root, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert 0 <= checkpoint.epochs_in(tmp_path)[-1] < CONFIG.epochs - 1, "killed too early or late"
    result, values, _ = run(tmp_path)
    assert result.resumed_at > 0
    assert tiny.same(values, uninterrupted[1])
    assert result.history == uninterrupted[0].history


def test_the_learning_rate_stays_after_the_switch_by_default() -> None:
    config = dataclasses.replace(CONFIG, switch_learning_rate=None)
    assert float(config.second_optimizer(2, 4).learning_rate) == pytest.approx(CONFIG.learning_rate)
    assert float(CONFIG.second_optimizer(2, 4).learning_rate) == pytest.approx(0.05)


WEIGHTS = np.array([1.0, 2.0, 0.5], np.float32)
PLAIN = dataclasses.replace(CONFIG, class_weight=None)


def as_shares(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return images, tf.one_hot(labels, tiny.CLASSES)


def weighted(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    return *as_shares(images, labels), tf.gather(WEIGHTS, labels)


def run_on(
    change, validation, folder: Path | None = None, *callbacks, config: TrainingConfig = PLAIN
):
    model = tiny.model()
    data = tiny.training_data(lambda epoch: tiny.data(epoch).map(change), validation)
    result = fit(model, data, config, folder=folder, callbacks=callbacks)
    return result, tiny.values(model), model


def test_one_hot_labels_with_weights_train_like_integers(uninterrupted) -> None:
    result, values, _ = run_on(weighted, tiny.validation().map(as_shares))
    expected, same_values, _ = uninterrupted
    assert result.history.keys() == expected.history.keys()
    for name, got in result.history.items():
        np.testing.assert_allclose(got, expected.history[name], rtol=2e-3, err_msg=name)
    for got, value in zip(values, same_values, strict=True):
        np.testing.assert_allclose(got, value, rtol=2e-3, atol=2e-4)


def test_the_loss_of_soft_labels_is_their_cross_entropy() -> None:
    def mixed(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return images, 0.7 * tf.one_hot(labels, 3) + 0.3 * tf.one_hot((labels + 1) % 3, 3)

    config = TrainingConfig(epochs=1)
    result, _, model = run_on(mixed, tiny.validation().map(mixed), config=config)
    labels = tiny.LABELS[:16]
    shares = 0.7 * np.eye(3)[labels] + 0.3 * np.eye(3)[(labels + 1) % 3]
    answers = model.predict(tiny.IMAGES[:16], verbose=0)
    expected = -(shares * np.log(answers)).sum(axis=1).mean()
    assert result.history["val_loss"] == [pytest.approx(expected, rel=1e-5)]
    assert result.history["val_accuracy"] == [np.mean(answers.argmax(axis=1) == labels)]


def test_soft_labels_with_weights_resume_bit_identical(tmp_path: Path) -> None:
    validation = tiny.validation().map(as_shares)
    whole, expected, _ = run_on(weighted, validation)
    with pytest.raises(Cut):
        run_on(weighted, validation, tmp_path, CutAt(14))
    result, values, _ = run_on(weighted, validation, tmp_path)
    assert result.resumed_at == 3
    assert tiny.same(values, expected)
    assert result.history == whole.history


@pytest.mark.parametrize(
    ("change", "config", "said"),
    [
        (as_shares, PLAIN, "different types of labels"),
        (as_shares, CONFIG, "class_weight needs integer labels"),
        (lambda images, labels: images, PLAIN, "received: no labels"),
        (lambda images, labels: (images, tf.cast(labels, tf.float32)), PLAIN, r"float32 \(8,\)"),
        (
            lambda images, labels: (images, tf.one_hot(labels, 3, dtype=tf.int32)),
            PLAIN,
            r"int32 \(8, 3\)",
        ),
    ],
)
def test_invalid_labels_are_rejected(change, config: TrainingConfig, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        run_on(change, tiny.validation(), config=config)


@pytest.mark.parametrize("beyond", ["training", "validation"])
@pytest.mark.parametrize(
    "config",
    [PLAIN, TrainingConfig(2, class_weight={0: 2.0}), TrainingConfig(2, label_smoothing=0.1)],
    ids=["plain", "weights", "smoothed"],
)
def test_a_label_out_of_range_is_named(beyond: str, config: TrainingConfig) -> None:
    def shifted(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return images, labels + 1

    def same(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return images, labels

    training, held = (shifted, same) if beyond == "training" else (same, shifted)
    with pytest.raises(TrainingError, match=r"no output for label 3\n *expected: .* 0 to 2"):
        run_on(training, tiny.validation().map(held), config=config)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.inside = tiny.model()

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.inside(inputs, training=training)


def test_a_subclassed_model_trains_and_cannot_be_smoothed() -> None:
    model = Subclassed()
    model(tiny.IMAGES[:1])
    config = TrainingConfig(1, class_weight={0: 2.0, 1: 1.0, 2: 1.0})
    result = fit(model, tiny.training_data(), config)
    assert np.isfinite(result.history["loss"]).all()
    with pytest.raises(TrainingError, match="number of classes"):
        fit(model, tiny.training_data(), TrainingConfig(1, label_smoothing=0.1))


def test_missing_class_weights_are_one() -> None:
    configs = [
        TrainingConfig(1, class_weight=weights)
        for weights in ({0: 3.0}, {0: 3.0, 1: 1.0, 2: 1.0}, {0: 3.0, 3: 1.0})
    ]
    _, values, _ = run_on(lambda *batch: batch, None, config=configs[0])
    _, expected, _ = run_on(lambda *batch: batch, None, config=configs[1])
    assert tiny.same(values, expected)
    with pytest.raises(TrainingError, match="without an output: 3"):
        run_on(lambda *batch: batch, None, config=configs[2])


AVERAGED = dataclasses.replace(
    CONFIG, ema_momentum=0.8, label_smoothing=0.2, patience=4, class_weight=None
)


class Steps(keras.callbacks.Callback):
    """Keeps the trainable weights after each update."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[np.ndarray]] = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.seen.append([v.numpy() for v in self.model.trainable_variables])


@pytest.mark.slow
@pytest.mark.parametrize("with_folder", [False, True])
def test_averaged_weights_continue_through_the_switch_and_are_kept(
    with_folder: bool, tmp_path: Path
) -> None:
    steps = Steps()
    folder = tmp_path if with_folder else None
    config = dataclasses.replace(AVERAGED, patience=None)
    result, _, model = run(folder, steps, config=config, validate=False)
    assert (result.switched_at, result.best_epoch) == (3, 5)
    average, *others = steps.seen
    for weights in others:
        average = [0.8 * a + 0.2 * w for a, w in zip(average, weights, strict=True)]
    for got, value in zip(model.trainable_variables, average, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-6, err_msg=got.path)


@pytest.mark.parametrize("with_folder", [False, True])
def test_the_averaged_weights_are_validated_by_the_smoothed_loss(
    with_folder: bool, tmp_path: Path
) -> None:
    result, _, model = run(tmp_path if with_folder else None, config=AVERAGED)
    losses = result.history["val_loss"]
    assert result.best_epoch == int(np.argmin(losses)) < len(losses) - 1
    answers = model.predict(tiny.IMAGES[:16], verbose=0)
    smooth = 0.8 * np.eye(3)[tiny.LABELS[:16]] + 0.2 / 3
    expected = -(smooth * np.log(answers)).sum(axis=1).mean()
    assert losses[result.best_epoch] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_averages_and_patience_resume_bit_identical(tmp_path: Path) -> None:
    whole, expected, _ = run(config=AVERAGED)
    for batch in (6, 18):
        with pytest.raises(Cut):
            run(tmp_path, CutAt(batch), config=AVERAGED)
    result, values, _ = run(tmp_path, config=AVERAGED)
    assert result.resumed_at == 4
    assert result.history == whole.history
    assert tiny.same(values, expected)


def test_patience_stops_training_without_improvement() -> None:
    config = TrainingConfig(epochs=9, optimizer="sgd", learning_rate=1e-9, patience=2)
    assert len(run(config=config)[0].history["loss"]) < 9


def test_the_batch_that_broke_the_loss_is_named_and_saved(tmp_path: Path, uninterrupted) -> None:
    def broken(first_epoch: int) -> tf.data.Dataset:
        def spoil(number: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            hit = number + first_epoch * tiny.STEPS == 2 * tiny.STEPS + 1
            third = tf.one_hot(2, tiny.BATCH, on_value=np.nan, off_value=0.0)[:, None, None, None]
            return tf.where(hit, batch[0] + third, batch[0]), batch[1]

        return tiny.data(first_epoch).enumerate().map(spoil)

    def attempt(batches):
        model = tiny.model()
        names = lambda epoch, batch: [f"{epoch}-{batch}-{i}.jpg" for i in range(tiny.BATCH)]  # noqa: E731
        data = tiny.training_data(batches, tiny.validation(), names)
        fit(model, data, CONFIG, folder=tmp_path)
        return tiny.values(model)

    with pytest.raises(TrainingError, match=r"batch 1 of epoch 2(.|\n)*1 of 8 .*: 2-1-2\.jpg"):
        attempt(broken)
    assert checkpoint.epochs_in(tmp_path)[-1] == 1
    with np.load(tmp_path / "refused-batch.npz") as kept:
        *_, (images, labels) = tiny.data(2).take(2)
        np.testing.assert_array_equal(kept["labels"], labels)
        np.testing.assert_array_equal(kept["images"][3:], images[3:])
        assert np.isnan(kept["images"][2]).all()
        assert kept["names"][2] == "2-1-2.jpg"
    assert tiny.same(attempt(tiny.data), uninterrupted[1])
    assert not (tmp_path / "refused-batch.npz").exists()


@pytest.mark.slow
def test_a_failed_write_keeps_the_previous_checkpoint(tmp_path: Path, uninterrupted) -> None:
    resource = pytest.importorskip("resource")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Full(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
            if epoch == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, most))

    try:
        with pytest.raises(OSError, match="too large"):
            run(tmp_path, Full())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert checkpoint.epochs_in(tmp_path)[-1] == 1
    assert not list(tmp_path.glob(".*"))
    assert tiny.same(run(tmp_path)[1], uninterrupted[1])


def test_with_loss_scaling_the_averages_are_kept(tmp_path: Path) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = tiny.model()
        config = TrainingConfig(epochs=3, optimizer="sgd", learning_rate=0.5, ema_momentum=0.99)
        for folder in (None, tmp_path):
            data = tiny.training_data(tiny.data, tiny.validation())
            result = fit(model, data, config, folder=folder)
            left = model.evaluate(tiny.validation(), verbose=0)[0]
            expected = result.history["val_loss"][result.best_epoch]
            assert left == pytest.approx(expected, rel=1e-2)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
def test_model_checkpoint_keeps_its_best_file_when_resuming(tmp_path: Path) -> None:
    def saving() -> keras.callbacks.Callback:
        path = tmp_path / "best.weights.h5"
        return keras.callbacks.ModelCheckpoint(path, save_best_only=True, save_weights_only=True)

    config = TrainingConfig(epochs=6, optimizer="sgd", learning_rate=3.0)
    whole, *_ = run(config=config)
    best = whole.best_epoch
    assert best < 4, "the cut must come after the best epoch"
    with pytest.raises(Cut):
        run(tmp_path, saving(), CutAt((best + 1) * tiny.STEPS + 1), config=config)
    kept = (tmp_path / "best.weights.h5").read_bytes()
    run(tmp_path, saving(), config=config)
    assert (tmp_path / "best.weights.h5").read_bytes() == kept


def test_finite_training_data_is_rejected() -> None:
    def attempt(batches) -> None:
        fit(tiny.model(), tiny.training_data(batches), TrainingConfig(epochs=3))

    with pytest.raises(TrainingError, match=r"ends(.|\n)*\.repeat\(\)"):
        attempt(
            lambda first: tf.data.Dataset.from_tensor_slices((tiny.IMAGES, tiny.LABELS)).batch(8)
        )
    with (
        pytest.raises(TrainingError, match="ended in epoch 1"),
        pytest.warns(UserWarning, match="ran out of data"),
    ):
        attempt(lambda first: tiny.data(first).take(tiny.STEPS).filter(lambda x, y: True))


def test_a_plateau_of_the_validation_loss_needs_validation() -> None:
    config = TrainingConfig(epochs=2, switch_to="sgd", switch_when=OnPlateau())
    with pytest.raises(TrainingError, match="there is no validation data"):
        run(config=config, validate=False)


def test_a_step_is_traced_once_for_each_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    traced, step = [], keras.Model.train_step

    def counted(model: keras.Model, batch: object) -> object:
        traced.append(type(model.optimizer))
        return step(model, batch)

    monkeypatch.setattr(keras.Model, "train_step", counted)
    run()
    assert [kind.__name__ for kind in traced] == ["Adam", "SGD"]


@pytest.mark.parametrize("kept", [False, True])
def test_averages_obey_the_constraints_of_their_weights(kept: bool, tmp_path: Path) -> None:
    model = tiny.model()
    kernel = model.get_layer("conv").kernel
    kernel.constraint = keras.constraints.NonNeg()
    kernel.assign(np.abs(kernel.numpy()))
    fit(
        model,
        tiny.training_data(tiny.data, tiny.validation()),
        TrainingConfig(epochs=2, learning_rate=0.1, ema_momentum=0.5),
        folder=tmp_path if kept else None,
    )
    assert kernel.numpy().min() == 0
