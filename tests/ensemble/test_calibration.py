"""Temperatures against plain NumPy, and what they do to models and files."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpipe.ensemble import apply_temperature, average, calibrate, fit_temperature, vote
from kpipe.ensemble.calibration import temper
from kpipe.errors import TrainingError


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def drawn(count: int, classes: int, truth: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, and labels drawn from them at the temperature `truth`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, classes))
    right = softmax(logits / truth)
    labels = (rng.uniform(size=(count, 1)) > right.cumsum(axis=1)).sum(axis=1)
    return softmax(logits), labels.clip(0, classes - 1)


# The fit


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    softened = softmax(np.log(probabilities) / temperature)
    return float(-np.log(softened[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize("truth", [0.5, 1.0, 1.7, 3.0])
def test_the_temperature_that_drew_the_labels_is_found(truth: float) -> None:
    fit = fit_temperature(*drawn(4000, 5, truth))
    assert fit.temperature == pytest.approx(truth, rel=0.08)
    assert fit.low < truth < fit.high and fit.doubt == ""


def test_it_has_the_least_cross_entropy_of_a_grid() -> None:
    probabilities, labels = drawn(200, 4, 2.0, seed=1)
    fit = fit_temperature(probabilities, labels)
    grid = np.linspace(0.2, 5, 2000)
    values = [cross_entropy(probabilities, labels, temperature) for temperature in grid]
    assert fit.temperature == pytest.approx(grid[np.argmin(values)], abs=0.003)
    assert fit.after == pytest.approx(min(values), abs=1e-6)
    assert fit.before == pytest.approx(cross_entropy(probabilities, labels, 1.0))
    # The interval: where the log-likelihood is 1.92 below its maximum.
    for end in (fit.low, fit.high):
        drop = 200 * (cross_entropy(probabilities, labels, end) - fit.after)
        assert drop == pytest.approx(1.92, abs=1e-3)


def test_the_interval_covers_the_truth_in_about_95_percent_of_draws() -> None:
    fits = [fit_temperature(*drawn(150, 3, 1.5, seed)) for seed in range(40)]
    assert 34 <= sum(fit.low < 1.5 < fit.high for fit in fits) <= 40


def test_one_hot_labels_are_the_same() -> None:
    probabilities, labels = drawn(100, 4, 1.5)
    assert fit_temperature(probabilities, np.eye(4)[labels]) == fit_temperature(
        probabilities, labels
    )


def test_few_images_leave_a_doubt() -> None:
    probabilities, labels = drawn(12, 3, 1.5, seed=3)
    fit = fit_temperature(probabilities, labels)
    assert not fit.all_correct
    assert fit.doubt == f"12 images only place it between {fit.low:.2f} and {fit.high:.2f}"


@pytest.mark.parametrize("images", [10, 300])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.999999])
def test_if_all_are_correct_the_confidence_is_that_of_the_rule_of_succession(
    images: int, confidence: float
) -> None:
    labels = np.arange(images) % 3
    probabilities = np.full((images, 3), (1 - confidence) / 2)
    probabilities[np.arange(images), labels] = confidence
    fit = fit_temperature(probabilities, labels)
    mean = temper(probabilities, fit.temperature).max(axis=1).mean()
    assert mean == pytest.approx((images + 1) / (images + 2), abs=1e-6) or (
        fit.temperature == pytest.approx(0.2) and mean < (images + 1) / (images + 2)
    )
    assert fit.all_correct and "rule of succession" in fit.doubt and fit.low == pytest.approx(0.2)


def test_probabilities_that_say_nothing_keep_their_temperature() -> None:
    fit = fit_temperature(np.full((30, 3), 1 / 3), np.arange(30) % 3)
    assert fit.temperature == 1 and fit.low == pytest.approx(0.2) and fit.high == pytest.approx(5)


def test_zeros_of_rounded_outputs_are_finite() -> None:
    rounded = np.tile(np.float32([[1, 0]]), (50, 1))
    fit = fit_temperature(rounded, np.repeat([0, 1], [40, 10]))
    assert fit.temperature == pytest.approx(5) and np.isfinite(fit.after)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.floats(-8, 8), min_size=4, max_size=4), min_size=1, max_size=8),
    st.floats(0.2, 5),
)
def test_the_predicted_class_never_changes(rows: list[list[float]], temperature: float) -> None:
    probabilities = softmax(np.array(rows))
    tempered = temper(probabilities, temperature)
    best = probabilities.argmax(axis=1)
    # Rounding may make two almost equal classes equal.
    taken = tempered[np.arange(len(rows)), best]
    np.testing.assert_allclose(taken, tempered.max(axis=1), rtol=1e-12)


BAD = {
    "logits": ([[3.0, -1.0]], [0]),
    "one unit": ([[0.5]], [0]),
    "no images": (np.empty((0, 3)), []),
    "NaN": ([[np.nan, 0.5]], [0]),
    "too many labels": ([[0.5, 0.5]], [0, 1]),
    "an unknown class": ([[0.5, 0.5]], [2]),
    "fractions": ([[0.5, 0.5]], [0.5]),
    "words": ([[0.5, 0.5]], ["cat"]),
    "ragged rows": ([[0.5, 0.5], [1.0]], [0, 0]),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_prediction_is_refused(kind: str) -> None:
    with pytest.raises(TrainingError):
        fit_temperature(*BAD[kind])


# Models

ENDINGS = {
    "dense softmax": lambda x: keras.layers.Dense(4, "softmax")(x),
    "dense, no bias": lambda x: keras.layers.Dense(4, "softmax", use_bias=False)(x),
    "activation": lambda x: keras.layers.Activation("softmax")(keras.layers.Dense(4)(x)),
    "softmax layer": lambda x: keras.layers.Softmax()(keras.layers.Dense(4)(x)),
    "operation": lambda x: keras.ops.softmax(keras.layers.Dense(4)(x)),
    "dropout": lambda x: keras.layers.Softmax()(
        keras.layers.Dropout(0.5)(keras.layers.Dense(4, "linear")(x))
    ),
    "1 x 1 convolution": lambda x: keras.layers.Softmax()(
        keras.layers.Flatten()(keras.layers.Conv2D(4, 1)(keras.layers.Reshape((1, 1, 6))(x)))
    ),
}


def ending(make, name: str | None = None) -> keras.Model:
    keras.utils.set_random_seed(0)
    row = keras.Input((6,))
    return keras.Model(row, make(row), name=name)


ROWS = np.random.default_rng(0).normal(0, 4, (20, 6)).astype("float32")


def outputs(model: keras.Model, rows: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(rows, training=False))


def check(model: keras.Model, temperature: float) -> keras.Model:
    """Check a model at a temperature against NumPy, and return it."""
    before = outputs(model, ROWS)
    weights = [weight.numpy() for weight in model.weights]
    found = apply_temperature(model, temperature)
    expected = softmax(np.log(before.astype(float)) / temperature)
    np.testing.assert_allclose(outputs(found, ROWS), expected, atol=2e-6)
    for weight, value in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight, value)
    return found


@pytest.mark.parametrize("temperature", [0.4, 2.5])
@pytest.mark.parametrize("kind", ENDINGS)
def test_the_last_layer_is_divided_and_the_graph_stays(kind: str, temperature: float) -> None:
    model = ending(ENDINGS[kind])
    found = check(model, temperature)
    assert [type(x) for x in found.operations] == [type(x) for x in model.operations]


def test_the_last_layer_of_a_nested_model_is_divided() -> None:
    inner = ending(ENDINGS["dense softmax"], name="inner")
    row = keras.Input((6,))
    found = check(keras.Model(row, inner(row)), 2.0)
    assert len(found.layers) == 2


def test_a_sequential_model_stays_one() -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "softmax")])
    assert isinstance(check(model, 2.0), keras.Sequential)


def shared_layer() -> keras.Model:
    row, dense = keras.Input((6,)), keras.layers.Dense(6)
    return keras.Model(row, keras.layers.Softmax()(dense(dense(row))))


def clipped() -> keras.Model:
    row = keras.Input((6,))
    return keras.Model(row, keras.layers.Softmax()(keras.layers.Dense(4, "relu")(row)))


OTHERS = {
    "average": lambda: average([ending(ENDINGS["dense softmax"]), ending(ENDINGS["activation"])]),
    "a layer used twice": shared_layer,
    "an activation before the softmax": clipped,
    "no weights": lambda: ending(lambda x: keras.layers.Softmax()(x)),
}


@pytest.mark.parametrize("temperature", [0.4, 2.5])
@pytest.mark.parametrize("kind", OTHERS)
def test_other_models_are_scaled_at_their_end(kind: str, temperature: float) -> None:
    check(OTHERS[kind](), temperature)


def test_a_scaled_model_is_saved_and_loaded(tmp_path) -> None:
    for number, model in enumerate((OTHERS["average"](), ending(ENDINGS["operation"]))):
        found = apply_temperature(model, 1.7)
        found.save(tmp_path / f"{number}.keras")
        loaded = keras.models.load_model(tmp_path / f"{number}.keras", safe_mode=True)
        np.testing.assert_array_equal(outputs(loaded, ROWS), outputs(found, ROWS))


def test_a_vote_can_be_calibrated_too() -> None:
    check(vote([ending(ENDINGS["dense softmax"]) for _ in range(3)]), 1.5)


def test_calibrate_fits_on_the_data_and_takes_batches() -> None:
    model = ending(ENDINGS["dense softmax"])
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 4, (400, 6)).astype("float32")
    before = outputs(model, rows)
    right = softmax(np.log(before) / 2)
    labels = (rng.uniform(size=(400, 1)) > right.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    temperature = fit_temperature(before, labels).temperature
    batches = [(rows[:150], labels[:150]), (rows[150:], labels[150:])]
    for data in ((rows, labels), batches, iter(batches)):
        found = outputs(calibrate(model, data), rows)
        np.testing.assert_allclose(found, temper(before, temperature), atol=1e-5)


REFUSED = {
    "logits": lambda: ending(lambda x: keras.layers.Dense(4)(x)),
    "one unit": lambda: ending(lambda x: keras.layers.Dense(1, "sigmoid")(x)),
    "several labels": lambda: ending(lambda x: keras.layers.Dense(4, "sigmoid")(x)),
    "no graph": lambda: keras.Sequential([keras.layers.Dense(4)]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_without_probabilities_is_refused(kind: str) -> None:
    with pytest.raises(TrainingError):
        calibrate(REFUSED[kind](), (ROWS, np.zeros(20, int)))


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf])
def test_a_temperature_out_of_range_is_refused(temperature: float) -> None:
    with pytest.raises(TrainingError, match="above 0"):
        apply_temperature(ending(ENDINGS["dense softmax"]), temperature)
