from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kpipe.data import (
    Augmenter,
    Manifest,
    Training,
    dataset,
    decode,
    from_folder,
    load_image,
    split,
    steps,
)
from kpipe.data import input as input_module
from kpipe.errors import DataError

STRONG = Augmenter(
    flip="horizontal", rotate=0.1, brightness=0.2, contrast=0.2, color=0.2, blur=0.5, crop=0.8
)
Batches = list[tuple[np.ndarray, np.ndarray]]


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
    for (images, labels), (others, other_labels) in zip(one, other, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)


def _joined(batches: Batches) -> np.ndarray:
    return np.concatenate([images for images, _ in batches])


def test_evaluation_is_the_manifest_in_order(manifest: Manifest) -> None:
    data = dataset(manifest, "train", image_size=(12, 20), batch_size=7)
    batches = list(data.as_numpy_iterator())
    assert int(data.cardinality()) == len(batches) == steps(manifest, "train", 7)
    paths = manifest.table["path"].to_numpy()[manifest.rows("train")]
    expected = np.stack([load_image(path, (12, 20)) for path in paths])
    np.testing.assert_array_equal(_joined(batches), expected)
    labels = np.concatenate([labels for _, labels in batches])
    np.testing.assert_array_equal(labels, manifest.labels("train"))


def test_batches_say_their_type_and_shape(manifest: Manifest, images: np.ndarray) -> None:
    for training in (None, Training(), Training(augmenter=STRONG)):
        data = dataset(manifest, "train", images=images, training=training)
        assert data.element_spec == (
            tf.TensorSpec((None, 16, 16, 3), tf.float32),
            tf.TensorSpec((None,), tf.int32),
        )


@pytest.mark.parametrize("augmenter", [None, STRONG])
def test_decoded_images_and_files_give_the_same_batches(
    augmenter: Augmenter | None, manifest: Manifest, images: np.ndarray
) -> None:
    for training in (None, Training(seed=2, augmenter=augmenter)):
        cached = dataset(manifest, "train", images=images, training=training, batch_size=8)
        read = dataset(manifest, "train", image_size=16, training=training, batch_size=8)
        _assert_same(_take(cached, 4), _take(read, 4))


def test_an_epoch_shows_every_photo_once_and_batches_end_with_it(
    manifest: Manifest, images: np.ndarray
) -> None:
    rows = manifest.rows("train")
    count = steps(manifest, "train", 8)
    data = dataset(manifest, "train", images=images, batch_size=8, training=Training())
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
    data = dataset(manifest, "train", images=images, batch_size=8, training=Training(seed=5))
    for batch, labels in _take(data, 6):
        assert [label_of[image.tobytes()] for image in batch] == labels.tolist()


def test_a_later_first_epoch_gives_what_the_first_run_gave_there(
    manifest: Manifest, images: np.ndarray
) -> None:
    training = Training(seed=7, augmenter=STRONG)
    count = steps(manifest, "train", 8)
    whole = _take(
        dataset(manifest, "train", images=images, batch_size=8, training=training), 5 * count
    )
    later = replace(training, first_epoch=3)
    resumed = dataset(manifest, "train", images=images, batch_size=8, training=later)
    _assert_same(whole[3 * count :], _take(resumed, 2 * count))


def test_the_number_of_threads_changes_nothing(
    manifest: Manifest, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    for threads in (1, 4):
        monkeypatch.setattr(input_module, "_PARALLEL", threads)
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        data = dataset(manifest, "train", images=images, batch_size=4, training=Training(3, STRONG))
        drawn.append(_take(data.with_options(options), 15))
    _assert_same(*drawn)


def test_deterministic_mode_changes_nothing(manifest: Manifest, images: np.ndarray) -> None:
    # What enable_op_determinism asks of a dataset, without its global switch.
    data = dataset(manifest, "train", images=images, batch_size=8, training=Training(3, STRONG))
    options = tf.data.Options()
    options.deterministic = True
    _assert_same(_take(data, 6), _take(data.with_options(options), 6))


def test_no_map_holds_an_operation_that_deterministic_mode_would_run_in_series(
    manifest: Manifest, images: np.ndarray
) -> None:
    from tensorflow.python.framework import op_def_registry

    data = dataset(manifest, "train", images=images, training=Training(3, STRONG))
    found, waiting = set(), [data]
    while waiting:
        one = waiting.pop()
        waiting += one._inputs()
        for function in one._functions():
            graph = function.function.graph.as_graph_def()
            bodies = [graph.node, *(body.node_def for body in graph.library.function)]
            found |= {node.op for body in bodies for node in body}
    assert "PyFuncStateless" in found
    stateful = {name for name in found if getattr(op_def_registry.get(name), "is_stateful", False)}
    # The slices of each epoch: a source in the serial flat_map, not in a parallel map.
    assert stateful <= {"Placeholder", "TensorSliceDataset"}


def test_draws_follow_seed_epoch_and_photo(manifest: Manifest, images: np.ndarray) -> None:
    count = steps(manifest, "train", 32)
    assert count == 1
    alike = np.broadcast_to(images[:1], images.shape)
    augmenter = Augmenter(brightness=0.3)

    def means(training: Training) -> list[float]:
        data = dataset(manifest, "train", images=alike, training=training)
        return sorted(_joined(_take(data, 1)).mean((1, 2, 3)).tolist())

    first = means(Training(0, augmenter))
    assert len(set(first)) == len(manifest.rows("train"))
    assert means(Training(0, augmenter)) == first
    assert not set(means(Training(1, augmenter))) & set(first)
    assert not set(means(Training(0, augmenter, first_epoch=1))) & set(first)


def test_batches_do_not_depend_on_row_order_or_place(
    manifest: Manifest, images: np.ndarray
) -> None:
    order = np.random.default_rng(0).permutation(len(manifest.table))
    table = manifest.table.iloc[order].reset_index(drop=True)
    table["path"] = [f"/elsewhere/{place}.png" for place in range(len(table))]
    moved = replace(manifest, table=table)
    training = Training(seed=4, augmenter=STRONG)
    one = dataset(manifest, "train", images=images, training=training)
    other = dataset(moved, "train", images=images[order], training=training)
    _assert_same(_take(one, 3), _take(other, 3))


def test_a_file_gone_in_the_meantime_is_named(manifest: Manifest) -> None:
    path = Path(manifest.table["path"][manifest.rows("test")[0]])
    path.unlink()
    with pytest.raises(tf.errors.OpError, match=f"{path.name} cannot be read"):
        list(dataset(manifest, "test", image_size=8))


def test_what_does_not_fit_is_refused(manifest: Manifest, images: np.ndarray) -> None:
    for wrong in (images[1:], images.astype(np.float32), images[..., 0]):
        with pytest.raises(DataError, match="not those of this manifest"):
            dataset(manifest, "train", images=wrong)
    with pytest.raises(DataError, match="not those of this manifest"):
        dataset(manifest, "train", images=images, image_size=17)
    with pytest.raises(DataError, match="no image size"):
        dataset(manifest, "train")
    with pytest.raises(DataError, match="no batch holds 0"):
        dataset(manifest, "train", images=images, batch_size=0)
    with pytest.raises(DataError, match="no batch holds True"):
        steps(manifest, "train", True)
    with pytest.raises(DataError, match="did you mean 'train'"):
        dataset(manifest, "trian", images=images)
    with pytest.raises(DataError, match="first_epoch=-1"):
        Training(first_epoch=-1)
    with pytest.raises(DataError, match=r"seed=0\.5"):
        Training(seed=0.5)
