"""What holds for every augmentation, alone and all together; a new one joins by its strength."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from kpipe.data import Augmenter
from kpipe.data.augmentation.strengths import STRENGTHS

# Each changes some photos of eight, and none beyond recognition.
USUAL: dict[str, float | str] = {
    "flip": "horizontal_and_vertical",
    **{
        name: strength.off + 0.4 * (_end - strength.off)
        for name, strength in STRENGTHS.items()
        for _end in [strength.low if strength.off == strength.high else strength.high]
    },
}
EXTREME = {
    "flip": "horizontal_and_vertical",
    **{
        name: strength.low if strength.off == strength.high else strength.high
        for name, strength in STRENGTHS.items()
    },
}
TOGETHER = [name for name in USUAL if name != "color"]  # which is two of the others
EVERY = pytest.mark.parametrize(
    "names", [*([name] for name in USUAL), TOGETHER], ids=[*USUAL, "all together"]
)
# These paint over a photo or speckle it.
NOT_FLAT = {"noise", "erase", "grid_mask"}


def _images(count: int, size: tuple[int, int] = (16, 12)) -> tf.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *size, 3))
    return tf.constant(pixels, tf.float32)


def _seeds(count: int) -> tf.Tensor:
    return tf.constant([[7, number] for number in range(count)], tf.int64)


def _augmenter(names: list[str], strengths: dict = USUAL) -> Augmenter:
    return Augmenter(**{name: strengths[name] for name in names})


def test_every_field_of_the_augmenter_is_tested_here() -> None:
    assert set(USUAL) == {field.name for field in dataclasses.fields(Augmenter)}


@EVERY
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (5, 8)])
def test_shape_and_range_are_kept(names: list[str], size: tuple[int, int]) -> None:
    for strengths in (USUAL, EXTREME):
        out = _augmenter(names, strengths)(_images(2, size), _seeds(2))
        assert out.shape == (2, *size, 3)
        assert np.isfinite(out).all()
        assert 0 <= tf.reduce_min(out) <= tf.reduce_max(out) <= 255


@EVERY
def test_the_type_is_kept_and_whole_numbers_are_rounded(names: list[str]) -> None:
    augmenter, seeds = _augmenter(names), _seeds(3)
    images = _images(3)
    expected = augmenter(images, seeds)
    for dtype, step in ((tf.uint8, 0.5), (tf.float16, 0.125)):
        out = augmenter(tf.cast(images, dtype), seeds)
        assert out.dtype == dtype
        np.testing.assert_allclose(tf.cast(out, tf.float32), expected, atol=step)


@EVERY
def test_a_batch_is_its_photos_one_by_one(names: list[str]) -> None:
    augmenter, images, seeds = _augmenter(names), _images(4), _seeds(4)
    one_by_one = [augmenter(image, seed) for image, seed in zip(images, seeds, strict=True)]
    np.testing.assert_allclose(augmenter(images, seeds), tf.stack(one_by_one), atol=1e-3)
    backwards = augmenter(images[::-1], seeds[::-1])
    np.testing.assert_allclose(backwards[::-1], tf.stack(one_by_one), atol=1e-3)


@EVERY
def test_the_same_seed_gives_the_same_photo(names: list[str]) -> None:
    images = _images(2)
    first = _augmenter(names)(images, _seeds(2))
    again = _augmenter(names)(images, tf.cast(_seeds(2), tf.int32))
    np.testing.assert_array_equal(first, again)


@EVERY
def test_both_numbers_of_the_seed_matter(names: list[str]) -> None:
    images = tf.repeat(_images(1), 8, axis=0)
    for seeds in (_seeds(8), _seeds(8)[:, ::-1]):
        drawn = {photo.tobytes() for photo in _augmenter(names)(images, seeds).numpy()}
        assert len(drawn) > 1


@EVERY
def test_eager_and_parallel_maps_agree(names: list[str]) -> None:
    augmenter, images, seeds = _augmenter(names), _images(4), _seeds(4)
    expected = augmenter(images, seeds)
    batches = tf.data.Dataset.from_tensor_slices((images, seeds)).batch(3)
    mapped = batches.map(augmenter, num_parallel_calls=2)
    assert mapped.element_spec.shape.as_list() == [None, 16, 12, 3]
    np.testing.assert_allclose(np.concatenate(list(mapped)), expected, atol=1e-3)


@EVERY
def test_a_parallel_map_has_no_state(names: list[str]) -> None:
    augmenter = _augmenter(names)
    for shape in ((), (None,)):
        traced = tf.function(lambda image, seed: augmenter(image, seed)).get_concrete_function(
            tf.TensorSpec((*shape, 16, 12, 3)), tf.TensorSpec((*shape, 2), tf.int64)
        )
        assert stateful_operations(traced) == set()


def stateful_operations(traced: Any) -> set[str]:
    """Of a traced function, its variables, and operations that are no function of their input."""
    graph = traced.graph.as_graph_def()
    nodes = [*graph.node, *(node for body in graph.library.function for node in body.node_def)]
    stateful = {node.op for node in nodes if op_def_registry.get(node.op).is_stateful}
    return {*stateful - {"Placeholder"}, *(variable.name for variable in traced.variables)}


@pytest.mark.parametrize("name", sorted(set(USUAL) - NOT_FLAT))
def test_a_flat_photo_stays_flat(name: str) -> None:
    flat = tf.fill((6, 24, 24, 3), 100.0)
    out = _augmenter([name])(flat, _seeds(6)).numpy()
    assert np.ptp(out, axis=(1, 2)).max() < 0.05


@pytest.mark.parametrize("name", USUAL)
def test_off_is_off(name: str) -> None:
    off = Augmenter(**{name: STRENGTHS[name].off if name in STRENGTHS else ""})
    assert off == Augmenter()
    for dtype in (tf.uint8, tf.float32):
        image = tf.cast(_images(1)[0], dtype)
        np.testing.assert_array_equal(off(image, tf.constant([0, 0])), image)


@pytest.mark.parametrize("name", STRENGTHS)
def test_scaling_to_nothing_turns_it_off_and_beyond_its_range_holds_it(name: str) -> None:
    augmenter = _augmenter([name])
    assert augmenter.scaled(1) == augmenter
    assert augmenter.scaled(0) == Augmenter()
    assert getattr(augmenter.scaled(100), name) == EXTREME[name]
