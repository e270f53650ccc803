from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kpipe.data import Augmenter
from kpipe.data.augmentation.color import Color
from tests.data.drawing import draws, noisy_photo


def test_brightness_shifts_evenly_both_ways() -> None:
    image = np.full((4, 4, 3), 128, np.float32)
    shifts = draws(Augmenter(brightness=0.2), image, 200)[:, 0, 0, 0] - 128
    assert -51 <= shifts.min() < -40
    assert 40 < shifts.max() <= 51


def test_contrast_is_lowered_as_well_as_raised() -> None:
    image = noisy_photo()
    spread = draws(Augmenter(contrast=0.3), image, 200).std(axis=(1, 2, 3)) / image.std()
    assert 0.65 < spread.min() < 0.75
    assert 1.2 < spread.max() < 1.35


_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def _yiq(images: np.ndarray) -> np.ndarray:
    return images @ _TO_YIQ.T


@pytest.mark.parametrize("settings", [{"color": 1}, {"saturation": 1}, {"hue": 0.5}])
def test_colors_change_neither_grey_nor_luma(settings: dict[str, float]) -> None:
    grey = np.repeat(noisy_photo()[..., :1], 3, axis=-1)
    np.testing.assert_allclose(draws(Augmenter(**settings), grey, 5), grey[None].repeat(5, 0), 1e-4)
    pale = 0.1 * noisy_photo() + 100  # far enough from the ends of the range
    drawn = draws(Augmenter(**settings), pale, 20)
    np.testing.assert_allclose(_yiq(drawn)[..., 0], _yiq(pale)[None, ..., 0].repeat(20, 0), 1e-3)
    assert len({round(float(one[0, 0, 0]), 5) for one in drawn}) == 20


def test_saturation_blends_with_grey_by_one_factor_a_photo() -> None:
    pale = 0.1 * noisy_photo() + 100
    grey = _yiq(pale)[..., :1]
    drawn = draws(Augmenter(saturation=0.4), pale, 100)
    factors = ((drawn - grey) * (pale - grey)).sum((1, 2, 3)) / ((pale - grey) ** 2).sum()
    expected = grey + factors[:, None, None, None] * (pale - grey)
    np.testing.assert_allclose(drawn, expected, atol=1e-2)
    assert 0.6 <= factors.min() < 0.65
    assert 1.35 < factors.max() <= 1.4


@pytest.mark.parametrize(
    ("settings", "largest"), [({"hue": 0.2}, 0.2), ({"color": 0.5}, 0.05), ({"hue": 0.5}, 0.5)]
)
def test_hue_turns_the_color_wheel_both_ways(settings: dict[str, float], largest: float) -> None:
    image = np.tile(np.float32([120, 100, 90]), (2, 2, 1))
    across = _yiq(draws(Augmenter(**settings), image, 100))[:, 0, 0, 1:] @ [1, 1j]
    turned = np.angle(across / (_yiq(image)[0, 0, 1:] @ [1, 1j])) / (2 * np.pi)
    assert -largest - 1e-4 <= turned.min() < -0.9 * largest
    assert 0.9 * largest < turned.max() <= largest + 1e-4


def test_brightness_contrast_and_color_are_applied_in_this_order() -> None:
    image = 0.2 * noisy_photo() + 100
    numbers = {"brightness": [0.7], "contrast": [0.1], "saturation": [0.8], "hue": [0.3]}
    drawn = {name: tf.constant(number, tf.float32) for name, number in numbers.items()}
    out = Color(0.1, 0.3, 0.2, 0.1)(image[None], drawn)[0]
    expected = image + 255 * 0.1 * 0.4
    mean = expected.mean((0, 1))
    expected = mean + (1 - 0.3 * 0.8) * (expected - mean)
    luma, across = _yiq(expected)[..., 0], _yiq(expected)[..., 1:] @ [1, 1j]
    across = across * (1 + 0.2 * 0.6) * np.exp(2j * np.pi * 0.1 * -0.4)
    expected = np.stack([luma, across.real, across.imag], -1) @ np.linalg.inv(_TO_YIQ).T
    np.testing.assert_allclose(out, expected, atol=1e-3)
