from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpipe.ensemble import average, greedy_soup, soup
from kpipe.errors import TrainingError

IMAGES = np.random.default_rng(0).normal(size=(6, 4, 4, 3)).astype("float32")


def network(seed: int, filters: int = 4, dropout: float = 0.5) -> keras.Model:
    """A network with statistics, a layer with a seed, and constants that derive from weights."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((4, 4, 3))
    norm = keras.layers.Normalization()
    norm.adapt(IMAGES * (1 + seed))
    x = keras.layers.Conv2D(filters, 2)(norm(pixels))
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(dropout)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(x))
    rng = np.random.default_rng(seed)
    batch_norm = model.layers[3]
    batch_norm.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in batch_norm.get_weights()])
    return model


def test_each_weight_is_the_mean_of_the_members() -> None:
    members = [network(seed) for seed in range(3)]
    mixed = soup(members)
    weights = zip(mixed.get_weights(), *(each.get_weights() for each in members), strict=True)
    for mean, *each in weights:
        np.testing.assert_allclose(mean, np.mean(each, axis=0, dtype="float64"), rtol=1e-6)
    # By a file, which sets everything that layers derive from their weights.
    mean = network(0)
    mean.set_weights(mixed.get_weights())
    mean.layers[1].finalize_state()
    np.testing.assert_allclose(mixed(IMAGES), mean(IMAGES), atol=1e-6)
    assert np.abs(mixed(IMAGES) - average(members)(IMAGES)).max() > 1e-3


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_mean_of_equal_networks_is_that_network_to_the_bit(count: int) -> None:
    model = network(1)
    mixed = soup([model] * count)
    for mean, one in zip(mixed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mean, one)
    np.testing.assert_array_equal(mixed(IMAGES), model(IMAGES))


def test_it_shares_nothing_with_its_members() -> None:
    members = [network(0), network(1)]
    before = [model.get_weights() for model in members]
    mixed = soup(members)
    mixed.set_weights([0 * weight for weight in mixed.get_weights()])
    for model, weights in zip(members, before, strict=True):
        for now, then in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(now, then)


def test_a_saved_soup_answers_as_before(tmp_path) -> None:
    mixed = soup([network(0), network(1)])
    mixed.save(tmp_path / "soup.keras")
    loaded = keras.models.load_model(tmp_path / "soup.keras")
    np.testing.assert_array_equal(loaded(IMAGES), mixed(IMAGES))


def test_other_layers_are_refused() -> None:
    with pytest.raises(TrainingError, match="member 2 of the soup has other layers") as error:
        soup([network(0), network(1, filters=5)])
    assert "Conv2D [(2, 2, 3, 4), (4,)]" in str(error.value)
    assert "(2, 2, 3, 5)" in str(error.value)
    pixels = keras.Input((4, 4, 3))
    short = keras.Model(pixels, keras.layers.Softmax()(keras.layers.Flatten()(pixels)[:, :3]))
    with pytest.raises(TrainingError, match="other layers"):
        soup([network(0), short])


def test_weights_that_are_nan_are_refused() -> None:
    broken = network(1)
    broken.layers[-1].set_weights([w * np.nan for w in broken.layers[-1].get_weights()])
    with pytest.raises(TrainingError, match="member 2"):
        soup([network(0), broken])


def scalar(value: float) -> keras.Model:
    start = keras.initializers.Constant(value)
    layer = keras.layers.Dense(1, kernel_initializer=start, use_bias=False)
    return keras.Sequential([keras.Input((1,)), layer])


def value_of(model: keras.Model) -> float:
    return float(model.get_weights()[0][0, 0])


@settings(max_examples=10)
@given(st.lists(st.integers(-9, 9), min_size=2, max_size=4), st.integers(-9, 9))
def test_members_are_added_while_the_loss_falls(values: list[int], best: int) -> None:
    mixed, weights = greedy_soup(
        [scalar(value) for value in values], lambda model: abs(value_of(model) - best)
    )
    # The recipe in plain Python.
    order = sorted(range(len(values)), key=lambda index: abs(values[index] - best))
    used = order[:1]
    for index in order[1:]:
        tried = [values[one] for one in [*used, index]]
        if abs(np.float32(np.mean(tried)) - best) < abs(
            np.float32(np.mean([values[one] for one in used])) - best
        ):
            used.append(index)
    assert np.flatnonzero(weights).tolist() == sorted(used)
    assert weights.sum() == pytest.approx(1)
    assert value_of(mixed) == pytest.approx(np.mean([values[one] for one in used]), rel=1e-6)


def test_a_soup_is_finished_before_it_is_judged() -> None:
    finished: list[keras.Model] = []
    members = [scalar(1.0), scalar(3.0)]
    mixed, weights = greedy_soup(
        members, lambda model: abs(value_of(model) - 2.0), finish=finished.append
    )
    assert finished == [mixed]
    assert weights.tolist() == [0.5, 0.5]
    alone, weights = greedy_soup(members, lambda model: abs(value_of(model) - 1.0))
    assert alone is members[0]
    assert weights.tolist() == [1.0, 0.0]


def test_members_without_a_loss_are_not_used() -> None:
    losses = iter([float("nan"), 1.0, float("nan")])
    _, weights = greedy_soup([scalar(1.0), scalar(2.0)], lambda model: next(losses))
    assert weights.tolist() == [0.0, 1.0]
    with pytest.raises(TrainingError, match="no member of the soup has a loss"):
        greedy_soup([scalar(1.0), scalar(2.0)], lambda model: float("nan"))
