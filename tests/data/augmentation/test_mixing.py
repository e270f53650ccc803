from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kpipe.data import Mixer
from kpipe.data.augmentation.strengths import ALPHAS
from kpipe.errors import DataError

ALONE = {name: {name: 0.8} for name in ALPHAS}
EVERY = pytest.mark.parametrize("settings", [*ALONE.values(), dict.fromkeys(ALPHAS, 0.8)])
SEED = tf.constant([3, 5], tf.int64)


def _photos(count: int = 6, size: tuple[int, int] = (12, 17)) -> tf.Tensor:
    """Photos of one color each, 10, 20, ...: what a pixel is of can be read off."""
    colors = tf.range(1, count + 1, dtype=tf.float32)[:, None, None, None] * 10
    return colors * tf.ones((count, *size, 3))


def _labels(count: int = 6, weights: np.ndarray | None = None) -> tf.Tensor:
    weights = np.ones(count, np.float32) if weights is None else weights
    return tf.eye(count) * weights[:, None]


def _partners(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of labels mixed from one-hot rows: each row's partner, and its own share."""
    own = np.diag(labels).copy()
    others = labels - np.diag(own)
    return np.where(own < 1, others.argmax(1), np.arange(len(labels))), own


@EVERY
def test_shapes_types_and_range_are_kept(settings: dict[str, float]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 8, 3))
    mixer = Mixer(**settings)
    expected, _ = mixer(tf.constant(pixels, tf.float32), _labels(3), SEED)
    for dtype, step in ((tf.uint8, 0.5), (tf.float16, 0.125), (tf.float32, 0.0)):
        images, labels = mixer(tf.cast(pixels, dtype), _labels(3), SEED)
        assert (images.shape, images.dtype) == ((3, 5, 8, 3), dtype)
        assert (labels.shape, labels.dtype) == ((3, 3), tf.float32)
        np.testing.assert_allclose(tf.cast(images, tf.float32), expected, atol=step)
        assert 0 <= tf.reduce_min(expected) <= tf.reduce_max(expected) <= 255


@EVERY
@pytest.mark.parametrize("size", [(12, 17), (5, 8)])
def test_a_label_says_what_the_photo_is_mixed_of(
    settings: dict[str, float], size: tuple[int, int]
) -> None:
    photos = _photos(size=size)
    for number in range(5):
        images, labels = Mixer(**settings)(photos, _labels(), tf.constant([number, 1], tf.int64))
        # Mean colors are linear in the shares: of an area, or of a blend.
        np.testing.assert_allclose(tf.reduce_sum(labels, 1), 1, atol=1e-6)
        expected = labels @ photos[:, 0, 0]
        np.testing.assert_allclose(tf.reduce_mean(images, (1, 2)), expected, rtol=1e-5)


@EVERY
def test_weighted_labels_are_mixed_by_the_same_shares(settings: dict[str, float]) -> None:
    weights = np.float32([0.2, 3, 1, 7, 0.5, 2])
    _, plain = Mixer(**settings)(_photos(), _labels(), SEED)
    _, weighted = Mixer(**settings)(_photos(), _labels(weights=weights), SEED)
    np.testing.assert_allclose(weighted, plain.numpy() * weights, rtol=1e-5)


def test_mix_up_blends_two_photos() -> None:
    photos = tf.constant(np.random.default_rng(0).uniform(0, 255, (6, 5, 8, 3)), tf.float32)
    images, labels = Mixer(mix_up=0.8)(photos, _labels(), SEED)
    partners, own = _partners(labels.numpy())
    assert (partners != np.arange(6)).any()
    own = own[:, None, None, None]
    expected = own * photos + (1 - own) * photos.numpy()[partners]
    np.testing.assert_allclose(images, expected, rtol=1e-5)


def test_cut_mix_pastes_a_rectangle_and_its_share_is_exactly_its_area() -> None:
    cut = 0
    for number in range(10):
        images, labels = Mixer(cut_mix=1)(_photos(), _labels(), tf.constant([number, 0], tf.int64))
        partners, own = _partners(labels.numpy())
        for row, (photo, partner) in enumerate(zip(images.numpy(), partners, strict=True)):
            pasted = photo[..., 0] == 10 * (partner + 1)
            if partner == row:
                continue
            cut += 1
            assert own[row] == pytest.approx(1 - np.count_nonzero(pasted) / pasted.size, abs=1e-6)
            np.testing.assert_array_equal(photo[..., 0][~pasted], 10 * (row + 1))
            rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
            assert pasted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert cut > 30


def test_fourier_mix_joins_two_photos_along_a_border_without_blending() -> None:
    photos = _photos(size=(32, 40))
    images, labels = Mixer(fourier_mix=1)(photos, _labels(), SEED)
    partners, own = _partners(labels.numpy())
    for row, (photo, partner) in enumerate(zip(images.numpy(), partners, strict=True)):
        colors = set(np.unique(photo))
        assert colors <= {10.0 * (row + 1), 10.0 * (partner + 1)}
        mask = photo[..., 0] == 10 * (row + 1)
        if 0.2 < own[row] < 0.8 and partner != row:
            # Blobs, not speckles: few neighbors differ.
            assert (mask[1:] != mask[:-1]).mean() < 0.15
    assert len(set(partners)) > 1


@pytest.mark.parametrize("name", ["mix_up", "cut_mix"])
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_follow_the_beta_distribution(name: str, alpha: float) -> None:
    size, count = (64, 64), 40
    mixer = Mixer(**{name: alpha})
    draw = tf.function(lambda seed: mixer(_photos(count, size), tf.eye(count), seed)[1])
    shares = np.concatenate(
        [_partners(draw(tf.constant([n, 0], tf.int64)).numpy())[1] for n in range(20)]
    )
    # The variance of Beta(alpha, alpha); photos that are their own partner count as whole.
    whole = 1 / count
    variance = 1 / (4 * (2 * alpha + 1)) + 0.25
    assert np.mean(shares) == pytest.approx(0.5 * (1 - whole) + whole, abs=0.04)
    assert np.mean(shares**2) == pytest.approx(variance * (1 - whole) + whole, abs=0.04)


@EVERY
def test_one_photo_alone_stays_as_it_is(settings: dict[str, float]) -> None:
    photos = _photos(1)
    for number in range(4):
        images, labels = Mixer(**settings)(photos, _labels(1), tf.constant([number, 0], tf.int64))
        np.testing.assert_allclose(images, photos, rtol=1e-6)
        np.testing.assert_allclose(labels, [[1]], rtol=1e-6)


@pytest.mark.parametrize("name", ALPHAS)
def test_the_smallest_alpha_leaves_nearly_every_photo_whole(name: str) -> None:
    mixer = Mixer(**{name: ALPHAS[name].low})
    _, labels = mixer(_photos(40), _labels(40), SEED)
    assert (np.max(labels, axis=1) > 0.8).sum() >= 30


@EVERY
def test_it_is_a_function_of_its_seed_in_eager_and_parallel_maps(settings) -> None:
    mixer = Mixer(**settings)
    seeds = tf.constant([[number, 1] for number in range(8)], tf.int64)
    data = tf.data.Dataset.from_tensor_slices(seeds)
    mapped = list(data.map(lambda seed: mixer(_photos(), _labels(), seed), num_parallel_calls=3))
    for seed, (images, labels) in zip(seeds, mapped, strict=True):
        expected, targets = mixer(_photos(), _labels(), tf.cast(seed, tf.int32))
        np.testing.assert_allclose(images, expected, atol=1e-3)
        np.testing.assert_allclose(labels, targets, atol=1e-5)
    assert len({labels.numpy().tobytes() for _, labels in mapped}) == 8


@EVERY
def test_a_parallel_map_has_no_state(settings: dict[str, float]) -> None:
    from tests.contracts.test_augmentations import stateful_operations

    mixer = Mixer(**settings)
    traced = tf.function(lambda *batch: mixer(*batch)).get_concrete_function(
        tf.TensorSpec((None, 12, 17, 3)), tf.TensorSpec((None, 6)), tf.TensorSpec((2,), tf.int64)
    )
    assert stateful_operations(traced) == set()


def test_of_several_ways_each_is_drawn() -> None:
    found = set()
    for number in range(24):
        seed = tf.constant([number, 9], tf.int64)
        images, labels = Mixer(mix_up=1, cut_mix=1)(_photos(), _labels(), seed)
        alone = {
            name: Mixer(**{name: 1})(_photos(), _labels(), seed) for name in ("mix_up", "cut_mix")
        }
        same = [
            name
            for name, (its, targets) in alone.items()
            if np.array_equal(images, its) and np.array_equal(labels, targets)
        ]
        assert len(same) == 1
        found.update(same)
    assert found == {"mix_up", "cut_mix"}


def test_nothing_asked_is_nothing_done() -> None:
    images, labels = Mixer()(_photos(), _labels(), SEED)
    np.testing.assert_array_equal(images, _photos())
    np.testing.assert_array_equal(labels, _labels())


def test_every_value_out_of_range_is_named() -> None:
    with pytest.raises(DataError) as caught:
        Mixer(mix_up=0.01, cut_mix=1.5, fourier_mix=-1)
    for words in ("mix_up=0.01", "cut_mix=1.5", "0 or between 0.05 and 1", "fourier_mix=-1"):
        assert words in str(caught.value)


def test_mixers_are_equal_by_value() -> None:
    assert Mixer(mix_up=0.2) == Mixer(mix_up=0.2)
    assert hash(Mixer(cut_mix=1)) == hash(Mixer(cut_mix=1))
