"""What holds for every augmentation, alone and all together."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kpipe.data import Augmenter

STRENGTHS = {
    "flip": "horizontal_and_vertical",
    "rotate": 0.1,
    "brightness": 0.3,
    "contrast": 0.3,
    "color": 0.3,
    "blur": 1.0,
    "crop": 0.7,
}
EXTREMES = {
    "flip": "horizontal_and_vertical",
    "rotate": 0.5,
    "brightness": 1.0,
    "contrast": 1.0,
    "color": 1.0,
    "blur": 1.0,
    "crop": 0.1,
}
EVERY = pytest.mark.parametrize("names", [[name] for name in STRENGTHS] + [list(STRENGTHS)])
SIZES = pytest.mark.parametrize("size", [(32, 32), (33, 47), (5, 8)])


def _image(size: tuple[int, int], seed: int = 0) -> tf.Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3))
    return tf.constant(pixels, tf.float32)


def _augmenter(names: list[str], strengths: dict = STRENGTHS) -> Augmenter:
    return Augmenter(**{name: strengths[name] for name in names})


@EVERY
@SIZES
def test_shape_type_and_range_are_kept(names: list[str], size: tuple[int, int]) -> None:
    for strengths in (STRENGTHS, EXTREMES):
        for seed in range(3):
            out = _augmenter(names, strengths)(_image(size), tf.constant([0, seed]))
            assert out.shape == (*size, 3)
            assert out.dtype == tf.float32
            assert np.isfinite(out).all()
            assert tf.reduce_min(out) >= 0
            assert tf.reduce_max(out) <= 255.001


@EVERY
def test_the_same_seed_gives_the_same_photo(names: list[str]) -> None:
    image = _image((32, 32))
    for dtype in (tf.int32, tf.int64):
        seed = tf.constant([3, 5], dtype)
        one, other = _augmenter(names)(image, seed), _augmenter(names)(image, seed)
        np.testing.assert_array_equal(one, other)


@EVERY
def test_both_numbers_of_the_seed_matter(names: list[str]) -> None:
    image, augmenter = _image((32, 32)), _augmenter(names)
    for seeds in ([(0, number) for number in range(12)], [(number, 0) for number in range(12)]):
        drawn = {augmenter(image, tf.constant(seed)).numpy().tobytes() for seed in seeds}
        assert len(drawn) >= (2 if names == ["flip"] else 12)


@EVERY
def test_eager_and_parallel_map_agree(names: list[str]) -> None:
    augmenter, images = _augmenter(names), [_image((16, 16), seed) for seed in range(8)]
    seeds = tf.constant([[1, number] for number in range(8)])
    data = tf.data.Dataset.from_tensor_slices((tf.stack(images), seeds))
    mapped = list(data.map(augmenter, num_parallel_calls=4).as_numpy_iterator())
    for image, seed, out in zip(images, seeds, mapped, strict=True):
        np.testing.assert_allclose(augmenter(image, seed), out, atol=1e-3)


@EVERY
def test_a_parallel_map_has_no_state(names: list[str]) -> None:
    signature = (tf.TensorSpec((16, 16, 3)), tf.TensorSpec((2,), tf.int64))
    augmenter = _augmenter(names)
    traced = tf.function(lambda image, seed: augmenter(image, seed)).get_concrete_function(
        *signature
    )
    assert traced.variables == ()
    graph = traced.graph.as_graph_def()
    nodes = [*graph.node, *(node for body in graph.library.function for node in body.node_def)]
    assert {node.op for node in nodes if _stateful(node.op)} <= {"Placeholder"}


def _stateful(name: str) -> bool:
    from tensorflow.python.framework import op_def_registry

    return bool(op_def_registry.get(name).is_stateful)


@EVERY
def test_a_flat_photo_keeps_its_flatness(names: list[str]) -> None:
    flat = tf.fill((24, 24, 3), 100.0)
    for seed in range(4):
        out = _augmenter(names)(flat, tf.constant([0, seed])).numpy()
        assert np.ptp(out) < 0.05


def test_nothing_asked_is_nothing_done() -> None:
    image = _image((32, 32))
    np.testing.assert_array_equal(Augmenter()(image, tf.constant([0, 0])), image)
