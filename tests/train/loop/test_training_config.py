"""TrainingConfig: its optimizers and its checks."""

from __future__ import annotations

import keras
import pytest

from kpipe.errors import TrainingError
from kpipe.train import AtEpoch, OneCycle, OnPlateau, ReduceOnPlateau, TrainingConfig


def test_the_default_is_adam_at_a_thousandth() -> None:
    made = TrainingConfig(epochs=1).first_optimizer(1)
    assert type(made) is keras.optimizers.Adam
    assert float(made.learning_rate) == pytest.approx(1e-3)
    assert float(TrainingConfig(epochs=1, optimizer="sgd").first_optimizer(1).learning_rate) == (
        pytest.approx(1e-3)
    )


def test_a_keras_optimizer_keeps_its_configuration_and_its_rate() -> None:
    given = keras.optimizers.Adam(0.02, beta_1=0.8, clipnorm=1.0)
    config = TrainingConfig(epochs=2, optimizer=given)
    one, two = config.first_optimizer(3), config.first_optimizer(3)
    assert one is not given and one is not two
    assert float(one.learning_rate) == pytest.approx(0.02)
    assert (one.beta_1, one.clipnorm) == (0.8, 1.0)
    other = TrainingConfig(epochs=2, optimizer=given, learning_rate=0.5).first_optimizer(1)
    assert float(other.learning_rate) == 0.5


def test_equal_configs_have_equal_reprs() -> None:
    def config() -> TrainingConfig:
        return TrainingConfig(
            epochs=2,
            optimizer=keras.optimizers.Adam(0.02),
            switch_to=keras.optimizers.SGD(0.1),
            switch_when=AtEpoch(1),
        )

    assert repr(config()) == repr(config())
    assert " at 0x" not in repr(config())


def test_a_schedule_runs_over_the_epochs_of_each_optimizer() -> None:
    config = TrainingConfig(
        epochs=10,
        learning_rate=0.4,
        schedule=OneCycle(rise=0.5, initial=0.1, final=0.1),
        switch_to="sgd",
        switch_learning_rate=0.8,
        switch_when=AtEpoch(4),
    )
    first = config.first_optimizer(10)._learning_rate
    assert [float(first(step)) for step in (0, 50, 100)] == pytest.approx([0.04, 0.4, 0.04])
    second = config.second_optimizer(4, 10)._learning_rate
    assert [float(second(step)) for step in (0, 30, 60)] == pytest.approx([0.08, 0.8, 0.08])


def test_the_learning_rate_stays_after_the_switch_by_default() -> None:
    config = TrainingConfig(epochs=2, learning_rate=0.03, switch_to="sgd", switch_when=AtEpoch(1))
    assert float(config.second_optimizer(1, 1).learning_rate) == pytest.approx(0.03)
    given = keras.optimizers.SGD(0.5)
    config = TrainingConfig(epochs=2, learning_rate=0.03, switch_to=given, switch_when=AtEpoch(1))
    assert float(config.second_optimizer(1, 1).learning_rate) == pytest.approx(0.5)


def test_both_optimizers_average_the_weights() -> None:
    config = TrainingConfig(epochs=2, ema_momentum=0.9, switch_to="sgd", switch_when=OnPlateau())
    for made in (config.first_optimizer(1), config.second_optimizer(1, 1)):
        assert (made.use_ema, made.ema_momentum) == (True, 0.9)


def test_only_a_plateau_needs_a_callback() -> None:
    assert TrainingConfig(epochs=1, schedule="cosine").schedule_callbacks("loss") == []
    config = TrainingConfig(epochs=1, schedule=ReduceOnPlateau(patience=2))
    (callback,) = config.schedule_callbacks("loss")
    assert (callback.monitor, callback.patience) == ("loss", 2)


def test_both_optimizers_decay_weights_and_shorten_gradients() -> None:
    config = TrainingConfig(
        epochs=2, optimizer="adamw", switch_to="sgd", switch_when=AtEpoch(1),
        weight_decay=0.05, clip_norm=1.5,
    )  # fmt: skip
    for made in (config.first_optimizer(3), config.second_optimizer(1, 3)):
        assert (made.weight_decay, made.global_clipnorm) == (0.05, 1.5)
    plain = TrainingConfig(epochs=2).first_optimizer(3)
    assert (plain.weight_decay, plain.global_clipnorm) == (None, None)


class Unknown(keras.optimizers.schedules.LearningRateSchedule):
    """Not registered with Keras."""

    def __call__(self, step):
        return 0.1

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"optimizer": "adm"}, "no optimizer"),
        ({"learning_rate": 0.0}, "learning rate is out of range"),
        ({"schedule": "cosin"}, "no learning rate schedule"),
        ({"switch_to": "sgd"}, "both"),
        ({"switch_when": AtEpoch(1)}, "both"),
        ({"switch_to": "sdg", "switch_when": AtEpoch(1)}, "no optimizer"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"ema_momentum": 1.0}, "ema_momentum"),
        ({"ema_momentum": 0.0}, "ema_momentum"),
        ({"patience": 0}, "patience"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"clip_norm": 0.0}, "clip_norm is out of range"),
        ({"clip_norm": float("nan")}, "clip_norm is out of range"),
        ({"class_weight": {0: -1.0}}, "invalid for class 0"),
        ({"optimizer": keras.optimizers.SGD(Unknown())}, "cannot be created"),
        ({"switch_to": "sgd", "switch_when": AtEpoch(2)}, "after the last epoch"),
    ],
)
def test_an_invalid_config_is_rejected(wrong, message) -> None:
    with pytest.raises(TrainingError, match=message):
        TrainingConfig(**{"epochs": 2, **wrong})


def test_exclusions_from_weight_decay_are_rejected() -> None:
    given = keras.optimizers.AdamW(0.1)
    given.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(TrainingError, match="excluded from weight decay"):
        TrainingConfig(epochs=1, optimizer=given)
