from __future__ import annotations

import itertools

import numpy as np
import pytest

from kpipe.data import Augmenter
from tests.data.drawing import draws, noisy_photo


@pytest.mark.slow
def test_blur_comes_with_its_probability_and_no_dark_border() -> None:
    image = noisy_photo()
    drawn = draws(Augmenter(blur=0.5), image, 200)
    same = (drawn == image).all(axis=(1, 2, 3))
    assert 70 < same.sum() < 130
    border = abs(drawn[:, 0].mean(axis=(1, 2)) - image[0].mean())
    assert border.max() < 10


def test_blur_is_a_gaussian_of_the_photo() -> None:
    image = np.zeros((9, 9, 3), np.float32)
    image[4, 4] = 255
    drawn = draws(Augmenter(blur=1), image, 20)
    np.testing.assert_allclose(drawn.sum(axis=(1, 2)), 255, rtol=1e-4)
    np.testing.assert_allclose(drawn, drawn[:, ::-1, ::-1], atol=1e-3)


def test_how_strong_a_blur_is_does_not_hang_on_whether_it_comes() -> None:
    image = np.zeros((9, 9, 3), np.float32)
    image[4, 4] = 255
    drawn = draws(Augmenter(blur=0.3), image, 200)[..., 0]
    # The share of the middle row and column: 0.34 at the largest standard deviation.
    for middle in (drawn[:, 4].sum(axis=1) / 255, drawn[:, :, 4].sum(axis=1) / 255):
        assert middle.min() < 0.45


def test_noise_has_a_deviation_of_its_own_in_each_photo() -> None:
    image = np.full((32, 32, 3), 128, np.float32)
    change = draws(Augmenter(noise=0.1), image, 60) - 128
    deviations = change.std((1, 2, 3))
    assert deviations.min() < 2
    assert 23 < deviations.max() < 26.5
    # Independent from pixel to pixel and from color to color.
    strong = change[deviations.argmax()]
    for one, other in ((strong[1:], strong[:-1]), (strong[..., 0], strong[..., 1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.06


def test_jpeg_loses_more_the_lower_its_quality_may_be() -> None:
    image = np.round(noisy_photo()[..., :1].repeat(3, -1))  # grey: JPEG loses color at any quality
    losses = [
        abs(draws(Augmenter(jpeg=lowest), image, 20) - image).mean((1, 2, 3))
        for lowest in (1, 50, 95)
    ]
    assert losses[0].mean() > losses[1].mean() > losses[2].mean() > 0
    assert losses[0].max() > 3 * losses[2].max()


@pytest.mark.slow
def test_channels_come_in_all_six_orders() -> None:
    image = noisy_photo()
    orders = list(itertools.permutations(range(3)))
    drawn = draws(Augmenter(channel_shuffle=1), image, 120)
    counts = [sum(np.array_equal(one, image[..., order]) for one in drawn) for order in orders]
    assert sum(counts) == 120
    assert min(counts) > 8
    half = draws(Augmenter(channel_shuffle=0.5), image, 120)
    same = sum(np.array_equal(one, image) for one in half)
    assert 50 < same < 90  # half of them, and a sixth of the others
