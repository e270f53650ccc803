"""Optimizers by name."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.errors import TrainingError
from kpipe.train import optimizer, optimizer_names


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adadelta", keras.optimizers.Adadelta),
        ("adam", keras.optimizers.Adam),
        ("adamw", keras.optimizers.AdamW),
        ("rmsprop", keras.optimizers.RMSprop),
        ("sgd", keras.optimizers.SGD),
    ],
)
def test_every_name_creates_its_optimizer(name: str, kind: type) -> None:
    made = optimizer(name, 0.5)
    assert type(made) is kind
    assert float(made.learning_rate) == 0.5
    assert name in optimizer_names()


def test_sgd_has_nesterov_momentum_by_default() -> None:
    assert (optimizer("sgd", 0.1).momentum, optimizer("sgd", 0.1).nesterov) == (0.9, True)
    assert optimizer("sgd", 0.1, momentum=0.5).momentum == 0.5


def test_cosine_falls_from_the_rate_to_zero() -> None:
    rate = optimizer("adam", 0.4, schedule="cosine", steps=10)._learning_rate
    got = [float(rate(step)) for step in range(11)]
    expected = 0.2 * (1 + np.cos(np.pi * np.arange(11) / 10))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(TrainingError) as caught:
        optimizer("adm", 0.1)
    assert "did you mean 'adam" in str(caught.value)
    with pytest.raises(TrainingError) as caught:
        optimizer("adam", 0.1, schedule="cosin")
    assert "did you mean 'cosine'?" in str(caught.value)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_an_invalid_learning_rate_is_rejected(rate: float) -> None:
    with pytest.raises(TrainingError, match="out of range"):
        optimizer("adam", rate)


def test_a_cosine_without_length_is_rejected() -> None:
    with pytest.raises(TrainingError, match="length"):
        optimizer("adam", 0.1, schedule="cosine")


def test_the_default_learning_rate_is_kept_unless_another_is_passed() -> None:
    assert float(optimizer("adam").learning_rate) == pytest.approx(1e-3)
    assert float(optimizer("sgd").learning_rate) == pytest.approx(1e-2)
    assert float(optimizer(keras.optimizers.Adam(0.25)).learning_rate) == 0.25
    assert float(optimizer(keras.optimizers.Adam(0.25), 0.5).learning_rate) == 0.5
    rate = optimizer(keras.optimizers.Adam(0.25), schedule="cosine", steps=4)._learning_rate
    assert float(rate(0)) == 0.25


def test_a_keras_optimizer_is_copied_with_its_configuration() -> None:
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    given = keras.optimizers.SGD(rate, momentum=0.7, nesterov=True, clipvalue=0.5)
    for kind in (given, keras.optimizers.serialize(given)):
        made = optimizer(kind, weight_decay=0.1)
        assert type(made) is keras.optimizers.SGD
        assert made.get_config() == {**given.get_config(), "weight_decay": 0.1}
        assert not made.built


def test_a_custom_optimizer_is_copied_with_its_class() -> None:
    class Own(keras.optimizers.SGD):
        pass

    assert type(optimizer(Own(0.1))) is Own

    def rate() -> float:
        return 0.125

    assert optimizer(keras.optimizers.SGD(rate)).learning_rate == 0.125


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizer("adam", clipnom=1.0), "does not accept these arguments"),
        (lambda: optimizer("adam", clipnorm=1.0, clipvalue=1.0), "does not accept these arguments"),
        (
            lambda: optimizer(
                keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 5)),
                schedule="cosine",
                steps=5,
            ),
            "already has a schedule",
        ),
    ],
)
def test_invalid_options_are_rejected(make, message) -> None:
    with pytest.raises(TrainingError, match=message):
        make()
