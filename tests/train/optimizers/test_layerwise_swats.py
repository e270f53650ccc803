"""SWATS by layers in `model.fit` against the algorithm in NumPy, each weight by itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import keras
import numpy as np
import pytest

import kpipe.train
from kpipe.errors import TrainingError
from kpipe.stages import FineTune
from kpipe.train import LayerwiseSWATS, TrainingConfig, fit, optimizer
from tests.train import dense, tiny

RATE, BETA_1, BETA_2, EPSILON = 0.01, 0.9, 0.9, 1e-7
EPOCHS = 4
# The weights of the toy network switch at different steps.
TOLERANCE = 3e-3


@dataclass
class Paper:
    """The algorithm, line by line, in float64; rates[k] is the learning rate of step k."""

    rates: list[float]
    tolerance: float = TOLERANCE
    weights: list[list[np.ndarray]] = field(default_factory=list)

    def run(self, start: list[np.ndarray]) -> Paper:
        w = [np.asarray(part, np.float64) for part in start]
        m, a, v = ([np.zeros_like(part) for part in w] for _ in range(3))
        average, rate = [0.0] * len(w), [0.0] * len(w)
        self.switched: list[int | None] = [None] * len(w)
        for k, (x, y) in zip(range(1, len(self.rates) + 1), dense.batches(), strict=False):
            learning_rate = self.rates[k - 1]
            gradients = dense.gradient(w, x, y)
            for i, g in enumerate(gradients):
                if self.switched[i] is not None:
                    v[i] = BETA_1 * v[i] + g
                    w[i] = w[i] - (1 - BETA_1) * rate[i] * learning_rate * v[i]
                    continue
                m[i] = BETA_1 * m[i] + (1 - BETA_1) * g
                a[i] = BETA_2 * a[i] + (1 - BETA_2) * g**2
                height = learning_rate * np.sqrt(1 - BETA_2**k) / (1 - BETA_1**k)
                p = -height * m[i] / (np.sqrt(a[i]) + EPSILON)
                w[i] = w[i] + p
                across = float((p * g).sum())
                if across != 0:
                    gamma = float((p * p).sum()) / -across
                    average[i] = BETA_2 * average[i] + (1 - BETA_2) * gamma / learning_rate
                    estimate = average[i] / (1 - BETA_2**k)
                    near = abs(estimate * learning_rate - gamma) < self.tolerance
                    if k > 1 and near and estimate > 0:
                        self.switched[i], rate[i] = k, estimate
            self.weights.append(list(w))
        return self


def swats(rate=RATE, tolerance: float = TOLERANCE, **options) -> LayerwiseSWATS:
    return LayerwiseSWATS(rate, tolerance, beta_1=BETA_1, beta_2=BETA_2, **options)


@pytest.mark.parametrize("falls", [False, True])
def test_each_weight_follows_the_algorithm(falls: bool) -> None:
    steps = EPOCHS * dense.STEPS
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps) if falls else RATE
    rates = [float(rate(step)) if falls else RATE for step in range(steps)]
    model = dense.model(swats(rate))
    paper = Paper(rates).run(model.get_weights())
    dense.train(model, EPOCHS)
    switched = model.optimizer.switched(model.trainable_variables)
    assert switched == paper.switched
    assert len({*switched}) > 1 and any(switched)
    for mine, expected in zip(model.get_weights(), paper.weights[-1], strict=True):
        np.testing.assert_allclose(mine, expected, rtol=2e-3, atol=2e-5)


def test_a_tolerance_that_is_never_met_leaves_adam() -> None:
    model = dense.model(swats(tolerance=1e-12))
    adam = dense.model(keras.optimizers.Adam(RATE, BETA_1, BETA_2))
    for trained in (model, adam):
        dense.train(trained, 2)
    assert model.optimizer.switched(model.trainable_variables) == [None] * 4
    for mine, theirs in zip(model.get_weights(), adam.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_a_saved_model_goes_on_where_it_was(tmp_path) -> None:
    whole = dense.model(swats())
    dense.train(whole, EPOCHS)
    half = dense.model(swats())
    dense.train(half, EPOCHS // 2)
    half.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    assert isinstance(loaded.optimizer, LayerwiseSWATS)
    assert loaded.optimizer.tolerance == TOLERANCE
    dense.train(loaded, EPOCHS, initial_epoch=EPOCHS // 2)
    for mine, expected in zip(loaded.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-6)


def test_fit_resumes_to_the_bit(tmp_path) -> None:
    class Killed(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    config = TrainingConfig(4, optimizer=swats(), schedule="cosine")
    whole = tiny.model()
    fit(whole, tiny.training_data(), config, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tiny.model(), tiny.training_data(), config, folder=tmp_path, callbacks=[Killed()])
    resumed = tiny.model()
    assert fit(resumed, tiny.training_data(), config, folder=tmp_path).resumed_at == 2
    for mine, expected in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_it_has_a_name() -> None:
    made = optimizer("swats", 0.01, tolerance=1e-4)
    assert isinstance(made, LayerwiseSWATS)
    assert (made.tolerance, float(made.learning_rate)) == (1e-4, pytest.approx(0.01))
    assert kpipe.train.optimizer_names()[-1] == "swats"


@pytest.mark.parametrize(
    "fields", [{"optimizer": "swats", "switch_to": "sgd"}, {"switch_to": "swats"}]
)
def test_a_stage_does_not_switch_twice(fields) -> None:
    (error,) = FineTune("MobileNetV2", **fields).validation_errors()
    assert "switches by itself" in error


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({"tolerance": 0.0}, "out of range"), ({"amsgrad": True}, "no amsgrad")],
)
def test_arguments_that_it_cannot_follow_are_refused(arguments, problem) -> None:
    with pytest.raises(TrainingError, match=problem):
        LayerwiseSWATS(**arguments)
