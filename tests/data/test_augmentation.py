from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kpipe.data import Augmenter
from kpipe.errors import DataError


def _image(height: int = 24, width: int = 24) -> np.ndarray:
    return np.random.default_rng(0).uniform(40, 200, (height, width, 3)).astype(np.float32)


def _draws(augmenter: Augmenter, image: np.ndarray, count: int) -> np.ndarray:
    seeds = tf.stack([tf.zeros(count, tf.int64), tf.range(count, dtype=tf.int64)], axis=1)
    signature = tf.TensorSpec(image.shape, tf.float32)
    draw = tf.function(
        lambda: tf.map_fn(
            lambda seed: augmenter(tf.constant(image), seed), seeds, fn_output_signature=signature
        )
    )
    return draw().numpy()


@pytest.mark.parametrize(
    ("flip", "mirrors"),
    [
        ("horizontal", [np.s_[:, ::-1]]),
        ("vertical", [np.s_[::-1]]),
        ("horizontal_and_vertical", [np.s_[:, ::-1], np.s_[::-1], np.s_[::-1, ::-1]]),
    ],
)
def test_flips_give_each_mirror_image_equally_often(flip: str, mirrors: list) -> None:
    image = _image(5, 6)
    expected = [image, *[image[mirror] for mirror in mirrors]]
    drawn = _draws(Augmenter(flip=flip), image, 200)
    counts = [sum(np.array_equal(one, other) for one in drawn) for other in expected]
    assert sum(counts) == 200
    assert min(counts) > 0.7 * 200 / len(expected)


def test_brightness_shifts_evenly_both_ways() -> None:
    image = np.full((4, 4, 3), 128, np.float32)
    shifts = _draws(Augmenter(brightness=0.2), image, 200)[:, 0, 0, 0] - 128
    assert -51 <= shifts.min() < -40
    assert 40 < shifts.max() <= 51


def test_contrast_is_lowered_as_well_as_raised() -> None:
    image = _image()
    spread = _draws(Augmenter(contrast=0.3), image, 200).std(axis=(1, 2, 3)) / image.std()
    assert 0.65 < spread.min() < 0.75
    assert 1.2 < spread.max() < 1.35


def test_color_keeps_grey_grey_and_value_as_it_is() -> None:
    grey = np.repeat(_image()[..., :1], 3, axis=-1)
    np.testing.assert_allclose(_draws(Augmenter(color=1), grey, 5), grey[None].repeat(5, 0), 1e-4)
    image = _image()
    drawn = _draws(Augmenter(color=0.3), image, 20)
    value = drawn.max(axis=-1) - image.max(axis=-1)
    assert abs(value).max() < 1e-2
    assert len({round(float(one.mean()), 3) for one in drawn}) == 20


def test_hue_turns_by_at_most_a_tenth_of_the_color_strength() -> None:
    image = np.tile(np.float32([200, 100, 50]), (2, 2, 1))
    drawn = _draws(Augmenter(color=0.5), image, 100)
    hues = tf.image.rgb_to_hsv(drawn / 255).numpy()[:, 0, 0, 0]
    turned = hues - tf.image.rgb_to_hsv(image / 255).numpy()[0, 0, 0]
    assert 0.04 < abs(turned).max() <= 0.0501


def test_blur_comes_with_its_probability_and_no_dark_border() -> None:
    image = _image()
    drawn = _draws(Augmenter(blur=0.5), image, 200)
    same = (drawn == image).all(axis=(1, 2, 3))
    assert 70 < same.sum() < 130
    border = abs(drawn[:, 0].mean(axis=(1, 2)) - image[0].mean())
    assert border.max() < 10


def test_blur_is_a_gaussian_of_the_photo() -> None:
    image = np.zeros((9, 9, 3), np.float32)
    image[4, 4] = 255
    drawn = _draws(Augmenter(blur=1), image, 20)
    np.testing.assert_allclose(drawn.sum(axis=(1, 2)), 255, rtol=1e-4)
    np.testing.assert_allclose(drawn, drawn[:, ::-1, ::-1], atol=1e-3)


def test_how_strong_a_blur_is_does_not_hang_on_whether_it_comes() -> None:
    image = np.zeros((9, 9, 3), np.float32)
    image[4, 4] = 255
    drawn = _draws(Augmenter(blur=0.3), image, 200)[..., 0]
    # The share of the middle row and column: 0.34 at the largest standard deviation.
    for middle in (drawn[:, 4].sum(axis=1) / 255, drawn[:, :, 4].sum(axis=1) / 255):
        assert middle.min() < 0.45


def test_rotation_by_half_a_turn_reaches_every_angle() -> None:
    # A bright half: its center of mass says the angle.
    image = np.zeros((21, 21, 3), np.float32)
    image[8:13, 14:19] = 255
    drawn = _draws(Augmenter(rotate=0.5), image, 100)[..., 0]
    grid = np.arange(21) - 10
    right = (drawn * grid).sum((1, 2))
    down = (drawn * grid[:, None]).sum((1, 2))
    quarters = np.floor(np.arctan2(down, right) / (np.pi / 2)).astype(int)
    assert set(quarters) == {-2, -1, 0, 1}


def test_small_rotations_stay_small() -> None:
    image = np.zeros((21, 21, 3), np.float32)
    image[8:13, 14:19] = 255
    drawn = _draws(Augmenter(rotate=0.05), image, 100)[..., 0]
    grid = np.arange(21) - 10
    angle = np.arctan2((drawn * grid[:, None]).sum((1, 2)), (drawn * grid).sum((1, 2)))
    assert 0.04 < abs(angle / (2 * np.pi)).max() <= 0.052


def test_crop_shows_a_window_of_the_declared_size_anywhere() -> None:
    # Pixel values are coordinates: a window's corners can be read off.
    rows, columns = np.mgrid[0:50, 0:50].astype(np.float32)
    image = np.stack([rows, columns, rows], axis=-1)
    drawn = _draws(Augmenter(crop=0.6), image, 200)
    height = (drawn[:, -1, 0, 0] - drawn[:, 0, 0, 0]) / 49
    width = (drawn[:, 0, -1, 1] - drawn[:, 0, 0, 1]) / 49
    np.testing.assert_allclose(height, width, atol=1e-3)
    assert 0.599 < height.min() < 0.62
    assert 0.98 < height.max() <= 1
    assert drawn[:, 0, 0, 0].max() > 15
    assert drawn[:, 0, 0, 1].max() > 15


def test_one_operation_does_not_move_the_draw_of_another() -> None:
    image = _image()
    alone = _draws(Augmenter(flip="horizontal"), image, 20)
    dim = _draws(Augmenter(flip="horizontal", brightness=1e-6), image, 20)
    np.testing.assert_allclose(alone, dim, atol=1e-3)


def test_python_random_state_is_left_alone() -> None:
    import random

    random.seed(0)
    before = random.getstate()
    _draws(Augmenter(rotate=0.1, blur=0.5), _image(), 2)
    assert random.getstate() == before


def test_scaling_multiplies_strengths_within_their_ranges() -> None:
    augmenter = Augmenter(flip="vertical", rotate=0.1, brightness=0.6, blur=0.4, crop=0.8)
    assert augmenter.scaled(1) == augmenter
    assert augmenter.scaled(0) == Augmenter(flip="vertical")
    double = augmenter.scaled(2)
    assert double.rotate == pytest.approx(0.2)
    assert double.brightness == 1
    assert double.crop == pytest.approx(0.6)
    assert augmenter.scaled(100).crop == 0.1
    for factor in (-1, float("nan"), float("inf")):
        with pytest.raises(DataError, match="cannot be scaled"):
            augmenter.scaled(factor)


def test_every_value_out_of_range_is_named() -> None:
    with pytest.raises(DataError) as caught:
        Augmenter(
            flip="horizontl", rotate=0.6, brightness=-0.1, contrast="x", blur=True, crop=0,
            color=float("nan"),
        )  # fmt: skip
    message = str(caught.value)
    assert "did you mean 'horizontal'?" in message
    for name in ("rotate=0.6", "brightness=-0.1", "contrast='x'", "blur=True", "crop=0", "color="):
        assert name in message


def test_augmenters_are_equal_by_value() -> None:
    assert Augmenter(rotate=0.1) == Augmenter(rotate=0.1)
    assert hash(Augmenter(rotate=0.1)) == hash(Augmenter(rotate=0.1))
    assert repr(Augmenter(rotate=0.1)).startswith("Augmenter(flip='', rotate=0.1")
