from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kpipe.data import (
    Augmenter,
    Manifest,
    Mixer,
    Sampling,
    TrainingOptions,
    dataset,
    decode,
    from_folder,
    load_image,
    split,
    steps,
)
from kpipe.data.loading import dataset as input_module
from kpipe.errors import DataError


@dataclass(frozen=True)
class Noise:
    """Stands for an augmenter: a number drawn from each photo's seed is added to it."""

    def __call__(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        def one(seed: tf.Tensor) -> tf.Tensor:
            return tf.random.stateless_uniform((1, 1, 1), seed, 1.0, 50.0)

        return images + tf.map_fn(one, seeds, fn_output_signature=tf.float32)


@dataclass(frozen=True)
class Blend:
    """Stands for a mixer: each photo with the next of the batch, by a share drawn or given."""

    share: float | None = None

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> Any:
        share = tf.random.stateless_uniform((), seed) if self.share is None else self.share
        return tuple(x * share + tf.roll(x, -1, 0) * (1 - share) for x in (images, labels))


ALL = TrainingOptions(
    5, Noise(), sampling=Sampling("oversample"), mixer=Blend(), class_weight={0: 1, 1: 2, 2: 3}
)
REAL = TrainingOptions(
    5,
    Augmenter(flip="horizontal", rotate=0.1, crop=0.8, brightness=0.2, color=0.2, blur=0.5),
    sampling=Sampling("augment_minority"),
    mixer=Mixer(mix_up=0.2, cut_mix=1.0),
    class_weight={0: 1, 1: 2, 2: 3},
)
Batches = list[tuple[np.ndarray, ...]]


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    return split(from_folder(folder), seed=1)


@pytest.fixture
def images(manifest: Manifest, tmp_path: Path) -> np.ndarray:
    return decode(manifest, 16, tmp_path / "decoded")


def _take(data: tf.data.Dataset, count: int) -> Batches:
    return list(data.take(count).as_numpy_iterator())


def _assert_same(one: Batches, other: Batches) -> None:
    assert len(one) == len(other)
    for batch, other_batch in zip(one, other, strict=True):
        for part, other_part in zip(batch, other_batch, strict=True):
            np.testing.assert_array_equal(part, other_part)


def _joined(batches: Batches, part: int = 0) -> np.ndarray:
    return np.concatenate([batch[part] for batch in batches])


def test_evaluation_is_the_manifest_in_order(manifest: Manifest) -> None:
    data = dataset(manifest, "train", image_size=(12, 20), batch_size=7)
    batches = list(data.as_numpy_iterator())
    assert int(data.cardinality()) == len(batches) == steps(manifest, "train", 7)
    paths = manifest.table["path"].to_numpy()[manifest.rows("train")]
    expected = np.stack([load_image(path, (12, 20)) for path in paths])
    np.testing.assert_array_equal(_joined(batches), expected)
    np.testing.assert_array_equal(_joined(batches, 1), manifest.labels("train"))


_INDICES, _HOT = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None, 3), tf.float32)
_WEIGHTS = tf.TensorSpec((None,), tf.float32)


@pytest.mark.parametrize(
    ("training", "one_hot", "expected"),
    [
        (None, False, (_INDICES,)),
        (None, True, (_HOT,)),
        (TrainingOptions(), False, (_INDICES,)),
        (TrainingOptions(augmenter=Noise()), True, (_HOT,)),
        (TrainingOptions(sampling=Sampling("undersample")), False, (_INDICES,)),
        (TrainingOptions(mixer=Blend()), False, (_HOT,)),
        (TrainingOptions(class_weight={0: 1, 1: 2, 2: 3}), False, (_INDICES, _WEIGHTS)),
        (ALL, False, (_HOT, _WEIGHTS)),
    ],
)
def test_batches_say_their_type_and_shape(
    training: TrainingOptions | None,
    one_hot: bool,
    expected: Any,
    manifest: Manifest,
    images: np.ndarray,
) -> None:
    photos = tf.TensorSpec((None, 16, 16, 3), tf.float32)
    for given in ({"images": images}, {"image_size": 16}):
        data = dataset(manifest, "train", training=training, one_hot=one_hot, **given)
        assert data.element_spec == (photos, *expected)


@pytest.mark.parametrize("training", [None, TrainingOptions(2), ALL])
def test_decoded_images_and_files_give_the_same_batches(
    training: TrainingOptions | None, manifest: Manifest, images: np.ndarray
) -> None:
    cached = dataset(manifest, "train", images=images, training=training, batch_size=8)
    read = dataset(manifest, "train", image_size=16, training=training, batch_size=8)
    _assert_same(_take(cached, 4), _take(read, 4))


def test_jpeg_files_give_the_decoded_images_to_one_level(
    photo: Callable[..., Path], tmp_path: Path
) -> None:
    for place, (label, kind) in enumerate(itertools.product("ab", ["jpg", "png", "jpg"])):
        photo(f"{label}/{place}.{kind}", seed=place, size=(40 + place, 60))
    manifest = split(from_folder(tmp_path / "photos"), (1.0, 0.0, 0.0))
    assert set(manifest.table["format"]) == {"JPEG", "PNG"}
    images = decode(manifest, 16, tmp_path / "decoded")
    for training in (None, TrainingOptions(2)):
        cached = dataset(manifest, "train", images=images, training=training)
        read = dataset(manifest, "train", image_size=16, training=training)
        one, other = _take(cached, 1), _take(read, 1)
        assert abs(_joined(one) - _joined(other)).max() <= 1
        np.testing.assert_array_equal(_joined(one, 1), _joined(other, 1))


def test_one_hot_labels_are_those_of_the_indices(manifest: Manifest, images: np.ndarray) -> None:
    batches = _take(dataset(manifest, "train", images=images, one_hot=True, batch_size=8), 4)
    np.testing.assert_array_equal(_joined(batches, 1), np.eye(3)[manifest.labels("train")])


def test_transparent_pixels_show_the_background(folder: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(folder / "cat" / "00.png")
    manifest = from_folder(folder)
    manifest = replace(manifest, table=manifest.table.assign(split="test"))
    data = dataset(manifest, "test", image_size=8, background="#102030", batch_size=1)
    np.testing.assert_array_equal(_take(data, 1)[0][0][0], np.full((8, 8, 3), [16, 32, 48]))


def test_an_epoch_shows_every_photo_once_and_batches_end_with_it(
    manifest: Manifest, images: np.ndarray
) -> None:
    rows = manifest.rows("train")
    count = steps(manifest, "train", 8)
    data = dataset(manifest, "train", images=images, batch_size=8, training=TrainingOptions())
    assert int(data.cardinality()) == tf.data.INFINITE_CARDINALITY
    batches = _take(data, 3 * count)
    expected = sorted(image.tobytes() for image in images[rows].astype(np.float32))
    orders = []
    for epoch in range(3):
        mine = batches[epoch * count : (epoch + 1) * count]
        assert [len(labels) for _, labels in mine] == [8] * (count - 1) + [len(rows) % 8 or 8]
        orders.append([image.tobytes() for image in _joined(mine)])
        assert sorted(orders[-1]) == expected
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_labels_follow_their_photos(manifest: Manifest, images: np.ndarray) -> None:
    rows = manifest.rows("train")
    label_of = {
        image.tobytes(): label
        for image, label in zip(
            images[rows].astype(np.float32), manifest.labels("train"), strict=True
        )
    }
    data = dataset(manifest, "train", images=images, batch_size=8, training=TrainingOptions(seed=5))
    for batch, labels in _take(data, 6):
        assert [label_of[image.tobytes()] for image in batch] == labels.tolist()


@pytest.mark.parametrize("method", ["oversample", "undersample", "augment_minority"])
def test_an_epoch_shows_what_the_sampling_aims_at(
    method: Any, manifest: Manifest, images: np.ndarray
) -> None:
    sampling = Sampling(method)
    wanted = sampling.targets(manifest.labels("train"))
    count = steps(manifest, "train", 8, sampling)
    assert count == -(-sum(wanted.values()) // 8)
    training = TrainingOptions(3, sampling=sampling)
    data = dataset(manifest, "train", images=images, batch_size=8, training=training)
    batches = _take(data, 3 * count)
    orders = []
    for epoch in range(3):
        mine = batches[epoch * count : (epoch + 1) * count]
        assert dict(enumerate(np.bincount(_joined(mine, 1)).tolist())) == wanted
        orders.append([image.tobytes() for image in _joined(mine)])
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_of_photos_drawn_for_their_rarity_only_the_repeats_are_augmented(
    manifest: Manifest, images: np.ndarray
) -> None:
    training = TrainingOptions(3, Noise(), sampling=Sampling("augment_minority"))
    count = steps(manifest, "train", 8, training.sampling)
    data = dataset(manifest, "train", images=images, batch_size=8, training=training)
    shown = [image.tobytes() for image in _joined(_take(data, count))]
    photos = {image.tobytes() for image in images[manifest.rows("train")].astype(np.float32)}
    plain = [image for image in shown if image in photos]
    assert sorted(plain) == sorted(photos)
    assert len(set(shown)) == len(shown) > len(plain)


def test_every_copy_of_a_photo_is_augmented_anew(manifest: Manifest, images: np.ndarray) -> None:
    training = TrainingOptions(3, Noise(), sampling=Sampling("oversample"))
    count = steps(manifest, "train", 8, training.sampling)
    data = dataset(manifest, "train", images=images, batch_size=8, training=training)
    shown = {image.tobytes() for image in _joined(_take(data, 2 * count))}
    assert len(shown) == 2 * sum(training.sampling.targets(manifest.labels("train")).values())


def test_a_mixer_sees_the_batch_of_the_training_without_it(
    manifest: Manifest, images: np.ndarray
) -> None:
    plain = TrainingOptions(3, Noise())
    data = dataset(manifest, "train", images=images, batch_size=8, training=plain, one_hot=True)
    expected = [
        (x * 0.25 + np.roll(x, -1, 0) * 0.75, y * 0.25 + np.roll(y, -1, 0) * 0.75)
        for x, y in _take(data, 6)
    ]
    mixed = dataset(
        manifest, "train", images=images, batch_size=8, training=replace(plain, mixer=Blend(0.25))
    )
    for found, wanted in zip(_take(mixed, 6), expected, strict=True):
        for part, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(part, other, rtol=1e-6)


def test_each_batch_is_mixed_by_a_draw_of_its_own(manifest: Manifest, images: np.ndarray) -> None:
    def shares(training: TrainingOptions) -> set[float]:
        data = dataset(
            manifest, "train", images=np.zeros_like(images), batch_size=4, training=training
        )
        return {float(labels.max(-1).min()) for _, labels in _take(data, 12)}

    assert len(shares(TrainingOptions(3, mixer=Blend()))) > 6
    assert not shares(TrainingOptions(3, mixer=Blend())) & shares(
        TrainingOptions(4, mixer=Blend())
    ) - {1.0}


def test_the_loss_of_a_mixed_photo_is_the_weighted_mean_of_its_parts(
    manifest: Manifest, images: np.ndarray
) -> None:
    weights = {0: 0.5, 1: 1.25, 2: 4.0}
    plain = TrainingOptions(3, class_weight=weights)
    unmixed = _take(dataset(manifest, "train", images=images, batch_size=8, training=plain), 5)
    mixed = dataset(
        manifest, "train", images=images, batch_size=8, training=replace(plain, mixer=Blend(0.3))
    )
    generator = np.random.default_rng(0)
    for (_, indices, weight), (_, labels, mixed_weight) in zip(
        unmixed, _take(mixed, 5), strict=True
    ):
        np.testing.assert_array_equal(weight, [weights[index] for index in indices])
        guess = generator.dirichlet(np.ones(3), len(indices))
        rows, others = np.arange(len(indices)), np.roll(indices, -1)
        own, other = -np.log(guess[rows, indices]), -np.log(guess[rows, others])
        expected = 0.3 * weight * own + 0.7 * np.roll(weight, -1) * other
        found = keras.losses.CategoricalCrossentropy(reduction=None)(labels, guess, mixed_weight)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        np.testing.assert_allclose(labels.sum(-1), 1, rtol=1e-6)


def test_a_weight_of_zero_leaves_a_photo_out(manifest: Manifest, images: np.ndarray) -> None:
    training = TrainingOptions(3, mixer=Blend(1.0), class_weight={0: 0, 1: 1, 2: 1})
    for _, labels, weight in _take(dataset(manifest, "train", images=images, training=training), 2):
        assert np.isfinite(labels).all()
        np.testing.assert_array_equal(weight, labels.sum(-1))
        assert set(weight) == {0.0, 1.0}


@pytest.mark.slow
def test_fit_takes_the_batches_of_every_kind(manifest: Manifest, images: np.ndarray) -> None:
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    )
    for training, loss in (
        (TrainingOptions(), "sparse_categorical_crossentropy"),
        (TrainingOptions(class_weight={0: 1, 1: 2, 2: 3}), "sparse_categorical_crossentropy"),
        (ALL, "categorical_crossentropy"),
    ):
        model.compile("sgd", loss)
        model.fit(
            dataset(manifest, "train", images=images, training=training),
            validation_data=dataset(
                manifest, "test", images=images, one_hot=training.mixer is not None
            ),
            steps_per_epoch=2,
            shuffle=False,
            verbose=0,
        )


@pytest.mark.parametrize("training", [TrainingOptions(7, Noise()), ALL, REAL])
def test_a_later_first_epoch_gives_what_the_first_run_gave_there(
    training: TrainingOptions, manifest: Manifest, images: np.ndarray
) -> None:
    count = steps(manifest, "train", 8, training.sampling)
    whole = _take(
        dataset(manifest, "train", images=images, batch_size=8, training=training), 5 * count
    )
    later = replace(training, first_epoch=3)
    resumed = dataset(manifest, "train", images=images, batch_size=8, training=later)
    _assert_same(whole[3 * count :], _take(resumed, 2 * count))


@pytest.mark.slow
@pytest.mark.parametrize("source", ["files", "images"])
def test_the_number_of_threads_changes_nothing(
    source: str, photo: Callable[..., Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in range(6):
        photo(f"owl/{place}.jpg", seed=100 + place, size=(300, 200 + place))
    manifest = split(from_folder(folder), seed=1)
    images = decode(manifest, 16, folder.parent / "decoded")
    given = {"images": images} if source == "images" else {"image_size": 16}
    drawn = []
    for threads in (1, 4):
        monkeypatch.setattr(input_module, "_PARALLEL", threads)
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        data = dataset(manifest, "train", **given, batch_size=4, training=REAL)
        drawn.append(_take(data.with_options(options), 15))
    _assert_same(*drawn)


def test_deterministic_mode_changes_nothing(manifest: Manifest, images: np.ndarray) -> None:
    # What enable_op_determinism asks of a dataset, without its global switch.
    data = dataset(manifest, "train", images=images, batch_size=8, training=REAL)
    options = tf.data.Options()
    options.deterministic = True
    _assert_same(_take(data, 6), _take(data.with_options(options), 6))


@pytest.mark.parametrize("source", ["files", "images"])
def test_no_map_holds_an_operation_that_deterministic_mode_would_run_in_series(
    source: str, photo: Callable[..., Path], manifest: Manifest, images: np.ndarray
) -> None:
    from tensorflow.python.framework import op_def_registry

    given = {"images": images}
    if source == "files":
        for label in ("cat", "dog", "owl"):
            photo(
                f"{label}/lying.jpg",
                size=(400, 300),
                exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
            )
        manifest = from_folder(Path(manifest.table["path"][0]).parents[1])
        manifest = replace(manifest, table=manifest.table.assign(split="train"))
        given = {"image_size": 16}
    data = dataset(manifest, "train", **given, training=REAL)
    found, waiting = set(), [data]
    while waiting:
        one = waiting.pop()
        waiting += one._inputs()
        for function in one._functions():
            graph = function.function.graph.as_graph_def()
            bodies = [graph.node, *(body.node_def for body in graph.library.function)]
            found |= {node.op for body in bodies for node in body}
    assert "PyFuncStateless" in found
    assert ("DecodeAndCropJpeg" in found) == (source == "files")
    stateful = {name for name in found if getattr(op_def_registry.get(name), "is_stateful", False)}
    # The batches of each epoch: sources in the serial flat_map, not in a parallel map.
    assert stateful <= {"Placeholder", "RangeDataset", "TensorSliceDataset"}


def test_draws_follow_seed_epoch_and_photo(manifest: Manifest, images: np.ndarray) -> None:
    count = steps(manifest, "train", 32)
    assert count == 1
    alike = np.broadcast_to(images[:1], images.shape)

    def means(training: TrainingOptions) -> list[float]:
        data = dataset(manifest, "train", images=alike, training=training)
        return sorted(_joined(_take(data, 1)).mean((1, 2, 3)).tolist())

    first = means(TrainingOptions(0, Noise()))
    assert len(set(first)) == len(manifest.rows("train"))
    assert means(TrainingOptions(0, Noise())) == first
    assert not set(means(TrainingOptions(1, Noise()))) & set(first)
    assert not set(means(TrainingOptions(0, Noise(), first_epoch=1))) & set(first)


@pytest.mark.parametrize("training", [TrainingOptions(4, Noise()), ALL, REAL])
def test_batches_do_not_depend_on_row_order_or_place(
    training: TrainingOptions, manifest: Manifest, images: np.ndarray
) -> None:
    order = np.random.default_rng(0).permutation(len(manifest.table))
    table = manifest.table.iloc[order].reset_index(drop=True)
    table["path"] = [f"/elsewhere/{place}.png" for place in range(len(table))]
    moved = replace(manifest, table=table)
    one = dataset(manifest, "train", images=images, training=training)
    other = dataset(moved, "train", images=images[order], training=training)
    _assert_same(_take(one, 4), _take(other, 4))


def test_a_file_gone_in_the_meantime_is_named(manifest: Manifest) -> None:
    path = Path(manifest.table["path"][manifest.rows("test")[0]])
    path.unlink()
    with pytest.raises(tf.errors.OpError, match=f"{path.name} cannot be read"):
        list(dataset(manifest, "test", image_size=8))


@pytest.mark.parametrize("weights", [{0: 1.0, 1: 1.0}, {0: 1, 1: 1, 2: 1, 3: 1}, {"cat": 1}])
def test_weights_of_other_classes_are_refused(
    weights: Any, manifest: Manifest, images: np.ndarray
) -> None:
    with pytest.raises(DataError, match=r"class weights do not match|invalid for class cat: 1"):
        dataset(manifest, "train", images=images, training=TrainingOptions(class_weight=weights))


def test_what_does_not_fit_is_refused(manifest: Manifest, images: np.ndarray) -> None:
    for wrong in (images[1:], images.astype(np.float32), images[..., 0]):
        with pytest.raises(DataError, match="do not match this manifest"):
            dataset(manifest, "train", images=wrong)
    with pytest.raises(DataError, match="do not match this manifest"):
        dataset(manifest, "train", images=images, image_size=17)
    with pytest.raises(DataError, match="no image size"):
        dataset(manifest, "train")
    with pytest.raises(DataError, match="batch_size=0"):
        dataset(manifest, "train", images=images, batch_size=0)
    with pytest.raises(DataError, match="did you mean 'train'"):
        dataset(manifest, "trian", images=images)
    with pytest.raises(DataError, match="no color is called"):
        dataset(manifest, "train", image_size=16, background="wite")
    with pytest.raises(DataError, match="first_epoch=-1"):
        TrainingOptions(first_epoch=-1)
    with pytest.raises(DataError, match="seed="):
        TrainingOptions(seed=2**63)
