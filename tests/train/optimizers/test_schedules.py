"""Schedules against their formulas."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpipe.errors import TrainingError
from kpipe.train import (
    Constant,
    CosineDecay,
    ExponentialDecay,
    OneCycle,
    ReduceOnPlateau,
    StepDecay,
    optimizer,
)
from kpipe.train.optimizers.piecewise_linear import PiecewiseLinear
from kpipe.train.optimizers.schedules import as_schedule, schedule_names

N = 100
T = np.arange(N + 20)
SHARE = np.minimum(T / N, 1)


def rates(schedule, peak: float = 2.0) -> np.ndarray:
    rate = schedule.learning_rate(peak, N)
    return np.array([float(rate(step)) if callable(rate) else rate for step in T])


def test_the_rates_follow_their_formulas() -> None:
    half = (1 + np.cos(np.pi * SHARE)) / 2
    np.testing.assert_allclose(rates(CosineDecay(final=0.1)), 2 * (0.1 + 0.9 * half), atol=1e-6)
    np.testing.assert_allclose(
        rates(ExponentialDecay(final=0.01))[: N + 1], 2 * 0.01 ** (T[: N + 1] / N), rtol=1e-5
    )
    factor = np.where(T < 50, 1, np.where(T < 75, 0.1, 0.01))
    np.testing.assert_allclose(rates(StepDecay()), 2 * factor, rtol=1e-6)
    for constant in (Constant(), ReduceOnPlateau()):
        assert set(rates(constant)) == {2.0}


def test_the_warmup_of_a_cosine_is_linear_from_the_first_step() -> None:
    got = rates(CosineDecay(warmup=0.2))
    np.testing.assert_allclose(got[:21], np.linspace(2 / 20, 2, 21), rtol=1e-5)
    half = (1 + np.cos(np.pi * np.arange(81) / 80)) / 2
    np.testing.assert_allclose(got[20:101], 2 * half, atol=1e-6)


def test_one_cycle_is_piecewise_linear() -> None:
    got = rates(OneCycle(rise=0.4, initial=0.1, final=0.01))
    expected = np.interp(T, [0, 40, 80, 100], [0.2, 2.0, 0.2, 0.02])
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.integers(0, 50), min_size=1, max_size=5).map(sorted),
    seed=st.integers(0, 99),
    at=st.integers(0, 60),
)
def test_piecewise_linear_interpolates(steps, seed, at) -> None:
    values = np.random.default_rng(seed).uniform(0.1, 1, len(steps))
    line = PiecewiseLinear(steps, list(values))
    # At two values for one step, the later holds from there on.
    expected = values[-1] if at >= steps[-1] else np.interp(at, steps, values)
    assert float(line(at)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", schedule_names())
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_schedule_takes_every_length(name, steps) -> None:
    rate = as_schedule(name).learning_rate(0.5, steps)
    got = [float(rate(step)) if callable(rate) else rate for step in range(steps)]
    assert all(0 < value <= 0.5 for value in got)


def saved(schedule: str, folder) -> str:
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(optimizer("sgd", 0.5, schedule=schedule, steps=10), "mse")
    model.fit(np.ones((6, 2)), np.ones((6, 1)), batch_size=2, verbose=0)
    path = str(folder / f"{schedule}.keras")
    model.save(path)
    return path


def test_a_saved_model_continues_its_schedule(tmp_path) -> None:
    for name in schedule_names():
        loaded = keras.models.load_model(saved(name, tmp_path))
        rate = as_schedule(name).learning_rate(0.5, 10)
        expected = float(rate(3)) if callable(rate) else rate
        assert float(loaded.optimizer.learning_rate) == pytest.approx(expected)
        assert int(loaded.optimizer.iterations) == 3


@pytest.mark.slow
def test_only_one_cycle_needs_kpipe_to_be_loaded(tmp_path) -> None:
    paths = {name: saved(name, tmp_path) for name in schedule_names()}
    code = (
        "import json, sys, keras\n"
        "def loads(path):\n"
        "    try:\n"
        "        return keras.models.load_model(path) is not None\n"
        "    except (TypeError, ValueError):\n"
        "        return False\n"
        "paths = json.loads(sys.argv[1])\n"
        "print(json.dumps({name: loads(path) for name, path in paths.items()}))\n"
        "import kpipe.train.optimizers.piecewise_linear\n"
        "print(loads(paths['one-cycle']))\n"
    )
    arguments = [sys.executable, "-c", code, json.dumps(paths)]
    out = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.splitlines()
    assert json.loads(out[-2]) == {name: name != "one-cycle" for name in paths}
    assert out[-1] == "True"


def test_a_plateau_is_keras_own_callback() -> None:
    schedule = ReduceOnPlateau(factor=0.5, patience=2, min_delta=0.1, min_lr=1e-4)
    callback = schedule.callback("val_loss")
    assert type(callback) is keras.callbacks.ReduceLROnPlateau
    assert (callback.monitor, callback.factor, callback.patience) == ("val_loss", 0.5, 2)
    assert (callback.min_delta, callback.min_lr, callback.mode) == (0.1, 1e-4, "min")


@pytest.mark.parametrize(
    "make",
    [
        lambda: CosineDecay(warmup=1.0),
        lambda: CosineDecay(final=-0.1),
        lambda: ExponentialDecay(final=0.0),
        lambda: StepDecay(at=()),
        lambda: StepDecay(at=(0.5, 0.2)),
        lambda: StepDecay(factor=0.0),
        lambda: OneCycle(rise=0.6),
        lambda: OneCycle(initial=0.1, final=0.2),
        lambda: ReduceOnPlateau(factor=1.0),
        lambda: ReduceOnPlateau(patience=0),
    ],
)
def test_an_invalid_schedule_is_rejected(make) -> None:
    with pytest.raises(TrainingError, match="is invalid"):
        make()


def test_a_misspelt_schedule_gets_a_suggestion() -> None:
    with pytest.raises(TrainingError) as caught:
        as_schedule("onecycle")
    assert "did you mean 'one-cycle'?" in str(caught.value)
