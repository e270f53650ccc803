"""SWATS in `model.fit` against the paper's algorithm in NumPy."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import keras
import numpy as np
import pytest

from kpipe.errors import TrainingError
from kpipe.train import SWATS, AtEpoch, SwitchOptimizer, TrainingConfig, fit
from tests.train import dense, tiny

RATE, BETA_1, BETA_2, EPSILON = 0.01, 0.9, 0.9, 1e-7
EPOCHS = 4


@dataclass
class Paper:
    """Algorithm 1 of Keskar and Socher 2017, line by line, in float64."""

    tolerance: float
    decay: float = 0.0
    clip: float = np.inf
    gammas: list[float] = field(default_factory=list)
    averages: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    weights: list[list[np.ndarray]] = field(default_factory=list)
    switched: int | None = None
    rate: float = 0.0

    def run(self, start: list[np.ndarray], steps: int) -> Paper:
        w = [np.asarray(part, np.float64) for part in start]
        m, a, v = ([np.zeros_like(part) for part in w] for _ in range(3))
        average = 0.0
        for k, (x, y) in zip(range(1, steps + 1), dense.batches(), strict=False):
            g = dense.gradient(w, x, y)
            norm = np.sqrt(sum((part**2).sum() for part in g))
            g = [part * min(1.0, self.clip / norm) for part in g]
            if self.switched is not None:
                v = [BETA_1 * old + new for old, new in zip(v, g, strict=True)]
                shrink = 1 - self.decay * (1 - BETA_1) * self.rate
                w = [
                    part * shrink - (1 - BETA_1) * self.rate * q
                    for part, q in zip(w, v, strict=True)
                ]
                self.weights.append(w)
                continue
            m = [BETA_1 * old + (1 - BETA_1) * new for old, new in zip(m, g, strict=True)]
            a = [BETA_2 * old + (1 - BETA_2) * new**2 for old, new in zip(a, g, strict=True)]
            height = RATE * np.sqrt(1 - BETA_2**k) / (1 - BETA_1**k)
            p = [-height * q / (np.sqrt(r) + EPSILON) for q, r in zip(m, a, strict=True)]
            w = [part * (1 - self.decay * RATE) + q for part, q in zip(w, p, strict=True)]
            self.weights.append(w)
            p, g = (np.concatenate([part.ravel() for part in parts]) for parts in (p, g))
            if p @ g != 0:
                gamma = (p @ p) / -(p @ g)
                average = BETA_2 * average + (1 - BETA_2) * gamma
                rate = average / (1 - BETA_2**k)
                gap = abs(rate - gamma)
                self.gammas.append(gamma)
                self.averages.append(average)
                self.gaps.append(gap if k > 1 else np.inf)
                if k > 1 and gap < self.tolerance and rate > 0:
                    self.switched, self.rate = k, rate
        return self


class Averages(keras.callbacks.Callback):
    """The running average after each step."""

    def __init__(self, switch: SwitchOptimizer) -> None:
        super().__init__()
        self.switch, self.seen = switch, []

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.seen.append(self.switch.get_state()["seen"]["average"])


def adam(kind=keras.optimizers.Adam, **options) -> keras.optimizers.Optimizer:
    return kind(RATE, beta_1=BETA_1, beta_2=BETA_2, epsilon=EPSILON, **options)


def a_tolerance(**paper) -> float:
    """Return a tolerance that only a step in the middle of an epoch meets, by a clear margin."""
    gaps = np.array(Paper(0.0, **paper).run(dense.model(adam()).get_weights(), 24).gaps)
    best = max(
        (k for k in range(8, 24) if (k + 1) % dense.STEPS),
        key=lambda k: gaps[:k].min() / gaps[k],
    )
    assert gaps[:best].min() > 2 * gaps[best]
    return float(np.sqrt(gaps[:best].min() * gaps[best]))


@pytest.mark.parametrize(
    ("optimizer", "paper"),
    [
        (adam(), {}),
        (adam(global_clipnorm=0.2), {"clip": 0.2}),
        (adam(keras.optimizers.AdamW, weight_decay=0.1), {"decay": 0.1}),
    ],
    ids=["adam", "clipped", "adamw"],
)
def test_each_step_equals_the_algorithm_of_the_paper(optimizer, paper) -> None:
    tolerance = a_tolerance(**paper)
    model = dense.model(optimizer)
    expected = Paper(tolerance, **paper).run(model.get_weights(), EPOCHS * dense.STEPS)
    assert expected.switched is not None and expected.switched % dense.STEPS
    switch = SwitchOptimizer("sgd", SWATS(tolerance))
    averages, weights = Averages(switch), dense.Weights()
    history = dense.train(model, EPOCHS, switch, averages, weights)

    done = expected.switched
    assert divmod(done, dense.STEPS) == (switch.switched_at, switch.switched_step)
    got = np.array([0.0, *averages.seen[:done]])
    np.testing.assert_allclose(got[1:], expected.averages, rtol=1e-4)
    gammas = (got[1:] - BETA_2 * got[:-1]) / (1 - BETA_2)
    np.testing.assert_allclose(gammas, expected.gammas, rtol=1e-3)
    for ours, theirs in zip(weights.seen, expected.weights, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

    sgd = model.optimizer
    assert type(sgd) is keras.optimizers.SGD
    assert (sgd.momentum, sgd.nesterov) == (BETA_1, False)
    assert float(sgd.learning_rate) == pytest.approx((1 - BETA_1) * expected.rate, rel=1e-4)
    assert int(sgd.iterations) == EPOCHS * dense.STEPS - done
    assert history["swats_rate"][-1] == pytest.approx(expected.rate, rel=1e-4)
    assert history["swats_gap"][-1] == pytest.approx(min(expected.gaps), abs=2e-3 * expected.rate)
    assert history["switched"] == [float(e >= switch.switched_at) for e in range(EPOCHS)]


@pytest.mark.parametrize(
    "compiling",
    [{"jit_compile": True}, {"run_eagerly": True}, {"auto_scale_loss": True}],
    ids=["xla", "eager", "scaled"],
)
def test_it_switches_at_the_same_step_however_the_model_runs(compiling) -> None:
    tolerance = a_tolerance()
    optimizer = adam()
    if "auto_scale_loss" in compiling:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    switch = SwitchOptimizer("sgd", SWATS(tolerance))
    with dense.free_order():
        model = dense.model(optimizer, **compiling)
        assert model.jit_compile == compiling.get("jit_compile", False)
        expected = Paper(tolerance).run(model.get_weights(), EPOCHS * dense.STEPS)
        dense.train(model, EPOCHS, switch)
    assert switch.switched_at * dense.STEPS + switch.switched_step == expected.switched
    for one, other in zip(model.get_weights(), expected.weights[-1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_steps_that_keras_runs_as_one_end_before_the_switch() -> None:
    tolerance = a_tolerance()
    model = dense.model(adam(), steps_per_execution=4)
    expected = Paper(tolerance).run(model.get_weights(), EPOCHS * dense.STEPS)
    switch = SwitchOptimizer("sgd", SWATS(tolerance))
    dense.train(model, EPOCHS, switch)
    after = switch.switched_at * dense.STEPS + switch.switched_step
    assert after == 4 * -(-expected.switched // 4)
    rate = float(model.optimizer.learning_rate)
    assert rate == pytest.approx((1 - BETA_1) * expected.rate, rel=1e-4)


def test_accumulated_gradients_count_as_one_step() -> None:
    model = dense.model(adam(gradient_accumulation_steps=4))
    switch = SwitchOptimizer("sgd", SWATS(1e-12))
    with pytest.warns(UserWarning, match="did not switch within 4 steps"):
        dense.train(model, 2, switch)


def test_a_switch_that_never_happens_warns_and_leaves_no_trace() -> None:
    model, plain = dense.model(adam()), dense.model(adam())
    switch = SwitchOptimizer("sgd", SWATS(1e-15))
    with pytest.warns(UserWarning, match="smallest gap .* tolerance is 1e-15"):
        history = dense.train(model, 2, switch)
    assert history["switched"] == [0, 0]
    assert history["swats_gap"][1] <= history["swats_gap"][0]
    dense.train(plain, 2)
    assert tiny.same(model.get_weights(), plain.get_weights())
    dense.train(model, 1)
    dense.train(plain, 1)
    assert tiny.same(model.get_weights(), plain.get_weights())
    assert switch.get_state()["seen"]["steps"] == 2 * dense.STEPS


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param((1, 3), id="before", marks=pytest.mark.slow),
        pytest.param((2, 5), id="between"),
        pytest.param((3, 5), id="after", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, broken) -> None:
    def run(*callbacks) -> tuple[keras.Model, SwitchOptimizer]:
        model = dense.model(adam())
        switch = SwitchOptimizer("sgd", SWATS(a_tolerance()))
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        dense.train(model, 6, switch, backup, *callbacks)
        return model, switch

    whole, switch = run()
    assert (switch.switched_at, switch.switched_step) != (None, 0)
    with pytest.raises(dense.Broken):
        run(dense.Break(*broken))
    resumed, other = run()
    assert json.dumps(switch.get_state()) == json.dumps(other.get_state())
    assert tiny.same(whole.get_weights(), resumed.get_weights())
    for one, two in zip(whole.optimizer.variables, resumed.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


def test_a_training_config_accepts_it(tmp_path) -> None:
    config = TrainingConfig(
        epochs=3, learning_rate=0.01, switch_to="sgd", switch_when=SWATS(1.0), schedule="cosine"
    )
    model = tiny.model()
    result = fit(model, tiny.training_data(), config, folder=tmp_path)
    assert result.switched_at == 0
    assert type(model.optimizer) is keras.optimizers.SGD
    schedule = model.optimizer._learning_rate
    assert type(schedule) is keras.optimizers.schedules.CosineDecay
    expected = (1 - 0.9) * result.history["swats_rate"][-1]
    assert schedule.initial_learning_rate == pytest.approx(expected)


def test_unsupported_optimizers_are_rejected() -> None:
    with pytest.raises(TrainingError, match="tolerance"):
        SWATS(0.0)
    with pytest.raises(TrainingError, match="chooses the learning rate"):
        SwitchOptimizer("adam", SWATS())
    model = dense.model(keras.optimizers.RMSprop())
    with pytest.raises(TrainingError, match="from Adam to SGD"):
        dense.train(model, 1, SwitchOptimizer("sgd", SWATS()))
    for wrong in (
        {"optimizer": "rmsprop", "switch_to": "sgd"},
        {"switch_to": "adam"},
        {"switch_to": "sgd", "switch_learning_rate": 0.1},
    ):
        with pytest.raises(TrainingError, match="SWATS"):
            TrainingConfig(epochs=2, switch_when=SWATS(), **wrong)
    TrainingConfig(epochs=2, switch_to="adam", switch_when=AtEpoch(1))
