from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kpipe.data import Augmenter
from kpipe.data.augmentation.geometry import Geometry
from tests.data.drawing import draws, noisy_photo


@pytest.mark.parametrize(
    ("flip", "mirrors"),
    [
        ("horizontal", [np.s_[:, ::-1]]),
        ("vertical", [np.s_[::-1]]),
        ("horizontal_and_vertical", [np.s_[:, ::-1], np.s_[::-1], np.s_[::-1, ::-1]]),
    ],
)
def test_flips_give_each_mirror_image_equally_often(flip: str, mirrors: list) -> None:
    image = noisy_photo(5, 6)
    expected = [image, *[image[mirror] for mirror in mirrors]]
    drawn = draws(Augmenter(flip=flip), image, 200)
    counts = [sum(np.array_equal(one, other) for one in drawn) for other in expected]
    assert sum(counts) == 200
    assert min(counts) > 0.7 * 200 / len(expected)


def test_rotation_by_half_a_turn_reaches_every_angle() -> None:
    # A bright half: its center of mass says the angle.
    image = np.zeros((21, 21, 3), np.float32)
    image[8:13, 14:19] = 255
    drawn = draws(Augmenter(rotate=0.5), image, 100)[..., 0]
    grid = np.arange(21) - 10
    right = (drawn * grid).sum((1, 2))
    down = (drawn * grid[:, None]).sum((1, 2))
    quarters = np.floor(np.arctan2(down, right) / (np.pi / 2)).astype(int)
    assert set(quarters) == {-2, -1, 0, 1}


def test_small_rotations_stay_small() -> None:
    image = np.zeros((21, 21, 3), np.float32)
    image[8:13, 14:19] = 255
    drawn = draws(Augmenter(rotate=0.05), image, 100)[..., 0]
    grid = np.arange(21) - 10
    angle = np.arctan2((drawn * grid[:, None]).sum((1, 2)), (drawn * grid).sum((1, 2)))
    assert 0.04 < abs(angle / (2 * np.pi)).max() <= 0.052


def test_crop_shows_a_window_of_the_declared_size_anywhere() -> None:
    # Pixel values are coordinates: a window's corners can be read off.
    rows, columns = np.mgrid[0:50, 0:50].astype(np.float32)
    image = np.stack([rows, columns, rows], axis=-1)
    drawn = draws(Augmenter(crop=0.6), image, 200)
    height = (drawn[:, -1, 0, 0] - drawn[:, 0, 0, 0]) / 49
    width = (drawn[:, 0, -1, 1] - drawn[:, 0, 0, 1]) / 49
    np.testing.assert_allclose(height, width, atol=1e-3)
    assert 0.599 < height.min() < 0.62
    assert 0.98 < height.max() <= 1
    assert drawn[:, 0, 0, 0].max() > 15
    assert drawn[:, 0, 0, 1].max() > 15


def _taken_from(geometry: Geometry, numbers: dict[str, float], size: tuple[int, int]) -> np.ndarray:
    """Where each pixel of the result is taken from: (rows, columns), (2, height, width)."""
    height, width = size
    center = np.array([height - 1, width - 1]).reshape(2, 1, 1) / 2
    sides = np.array([height, width]).reshape(2, 1, 1)
    place = np.mgrid[0:height, 0:width].astype(float)

    def spread(low: float, high: float, name: str) -> float:
        return low + (high - low) * numbers[name]

    share = spread(geometry.crop, 1, "share")
    corner = (1 - share) * np.array([numbers["top"], numbers["left"]]).reshape(2, 1, 1)
    place = corner * 2 * center + share * place
    place = center + spread(1 - geometry.zoom, 1 + geometry.zoom, "zoom") * (place - center)
    shift = np.array([spread(-1, 1, "down"), spread(-1, 1, "right")]).reshape(2, 1, 1)
    place = place - geometry.translate * shift * sides
    angle = 2 * np.pi * spread(-geometry.rotate, geometry.rotate, "turn")
    down, right = place - center
    turned = [right * np.sin(angle) + down * np.cos(angle),
              right * np.cos(angle) - down * np.sin(angle)]  # fmt: skip
    place = center + turned
    if "horizontal" in geometry.flip and numbers["mirror"] < 0.5:
        place[1] = width - 1 - place[1]
    if "vertical" in geometry.flip and numbers["upend"] < 0.5:
        place[0] = height - 1 - place[0]
    return place


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry("horizontal_and_vertical", 0.1, 0.1, 0.2, 0.6),
        Geometry("vertical", 0.5, 0.0, 0.0, 1.0),
        Geometry("", 0.0, 0.3, 0.0, 1.0),
        Geometry("", 0.0, 0.0, 0.6, 1.0),
        Geometry("horizontal", 0.0, 0.0, 0.0, 0.3),
        Geometry("horizontal_and_vertical", 0.0, 0.0, 0.0, 1.0),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_geometry_is_flip_rotation_translation_zoom_and_crop(geometry: Geometry, seed: int) -> None:
    size = (24, 31)
    generator = np.random.default_rng(seed)
    numbers = {name: generator.uniform() for name in Geometry.NUMBERS}
    # Pixel values are places, so bilinear interpolation between them is exact.
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    image = np.stack([rows, columns, rows], axis=-1)
    drawn = {name: tf.constant([number], tf.float32) for name, number in numbers.items()}
    out = geometry(tf.constant(image[None]), drawn)[0]
    row, column = _taken_from(geometry, numbers, size)
    inside = (row >= 0) & (row <= size[0] - 1) & (column >= 0) & (column <= size[1] - 1)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(out[..., 0][inside], row[inside], atol=2e-3)
    np.testing.assert_allclose(out[..., 1][inside], column[inside], atol=2e-3)


def test_beyond_the_edge_a_photo_goes_on_in_its_mirror() -> None:
    image = noisy_photo(8, 10)
    drawn = {name: tf.constant([0.5]) for name in Geometry.NUMBERS}
    half = Geometry("", 0.0, 0.5, 0.0, 1.0)(image[None], {**drawn, "right": tf.constant([1.0])})[0]
    np.testing.assert_allclose(half[:, 5:], image[:, :5], atol=1e-3)
    np.testing.assert_allclose(half[:, :5], image[:, 4::-1], atol=1e-3)
