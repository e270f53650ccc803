"""Which photos count as copies of one shot; every scene here is drawn."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from kpipe.data.image_info import THUMBNAIL, ImageInfo, read_image_info
from kpipe.data.near_duplicates.alignment import align, correlation, halve, move
from kpipe.data.near_duplicates.comparison import components
from kpipe.data.near_duplicates.grouping import likeness, representatives


def scene(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Color blobs of many sizes."""
    generator = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize(
                size, Image.Resampling.BICUBIC
            ),
            float,
        )
        for side in (3, 6, 12, 24)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


@pytest.fixture
def facts(tmp_path) -> Callable[..., ImageInfo]:
    """`facts(image)`: what the file would hold; `name` stands for its digest."""

    def read(image: Image.Image, name: str = "", **options: object) -> ImageInfo:
        content = io.BytesIO()
        image.save(content, **{"format": "PNG", **options})
        path = tmp_path / "photo.png"
        path.write_bytes(content.getvalue())
        found = read_image_info(str(path))
        return dataclasses.replace(found, sha256=name or found.sha256)

    return read


def zoomed(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    box = (share * width, share * height, (1 - share) * width, (1 - share) * height)
    return image.crop(tuple(map(round, box)))


COPIES = {
    "quality 30": lambda image: (image, {"format": "JPEG", "quality": 30}),
    "half": lambda image: (image.resize((60, 45), Image.Resampling.BICUBIC), {}),
    "three times": lambda image: (image.resize((360, 270), Image.Resampling.BICUBIC), {}),
    "brighter": lambda image: (ImageEnhance.Brightness(image).enhance(1.15), {}),
    "less contrast": lambda image: (ImageEnhance.Contrast(image).enhance(0.8), {}),
    "grey": lambda image: (image.convert("L"), {}),
    "cropped": lambda image: (zoomed(image, 0.025), {}),
}
OTHERS = {
    "mirrored": ImageOps.mirror,
    "turned": lambda image: image.rotate(90),
    "in other colors": lambda image: Image.merge("RGB", image.split()[::-1]),
    "half of it": lambda image: zoomed(image, 0.25),
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES)
def test_a_changed_copy_has_the_representative_of_its_photo(
    facts: Callable[..., ImageInfo], change: Callable[[Image.Image], tuple[Image.Image, dict]]
) -> None:
    photos = [facts(scene(seed), f"{seed:02}") for seed in range(30)]
    image, options = change(scene(7))
    found = representatives([*photos, facts(image, "99", **options)])
    assert found == [f"{seed:02}" for seed in range(30)] + ["07"]


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_what_is_no_copy_represents_itself(
    facts: Callable[..., ImageInfo], change: Callable[[Image.Image], Image.Image]
) -> None:
    photos = [facts(scene(seed), f"{seed:02}") for seed in range(30)]
    assert representatives([*photos, facts(change(scene(7)), "99")])[-1] == "99"


def test_the_smallest_digest_represents_whatever_the_order(facts: Callable[..., ImageInfo]) -> None:
    photos = [facts(scene(seed), f"{seed + 10}") for seed in range(30)]
    photos += [facts(scene(3).resize((60, 45)), "00"), facts(scene(3), "77"), photos[3]]
    expected = dict(zip([photo.sha256 for photo in photos], representatives(photos), strict=True))
    assert expected["13"] == expected["00"] == expected["77"] == "00"
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(photos))
        shuffled = [photos[place] for place in order]
        assert representatives(shuffled) == [expected[photo.sha256] for photo in shuffled]


def test_no_photo_is_no_group() -> None:
    assert representatives([]) == [] and likeness([], []).shape == (0,)


def test_flat_photos_are_alike_to_none(facts: Callable[..., ImageInfo]) -> None:
    flat = [facts(Image.new("RGB", (50, 50), (level,) * 3), f"{level}") for level in (99, 101)]
    assert representatives(flat) == ["99", "101"]


def test_likeness_is_one_of_a_photo_and_itself_and_small_of_two(
    facts: Callable[..., ImageInfo],
) -> None:
    one, two = facts(scene(1)), facts(scene(2))
    found = likeness([one, one], [one, two])
    assert found[0] == pytest.approx(1, abs=1e-4) and found[1] < 0.7


def test_a_crop_is_laid_upon_its_photo() -> None:
    whole = scene(5, (640, 640)).convert("L")
    grey, crop = (
        np.asarray(image.resize((64, 64), Image.Resampling.HAMMING), np.float32)[None]
        for image in (whole, whole.crop((0, 19, 621, 640)))
    )
    moves = np.zeros((1, 4), np.float32)
    assert correlation(grey, np.ones_like(grey), crop)[0] < 0.98
    moves = align(halve(grey), halve(crop), moves)
    moves = align(grey, crop, moves)
    # 3 % of the whole side is 0.06 of half a side: half of it shrinks, half of it shifts.
    assert moves[0] == pytest.approx([-0.03, -0.03, 0.03, -0.03], abs=0.01)
    assert correlation(*move(grey, moves), crop)[0] > 0.995


def test_components_are_orthonormal_and_fewer_of_fewer_photos() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (100, THUMBNAIL, THUMBNAIL), dtype=np.uint8)
    for count, expected in ((100, 11), (9, 1), (0, 1)):
        found = components(grey[:count])
        assert found.shape == (expected, 256)
        assert found @ found.T == pytest.approx(np.eye(expected), abs=1e-5)
