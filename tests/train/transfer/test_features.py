"""Training on cached features equals training the model with its frozen part."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.train import TrainingConfig, fit, folded_inference, unfreeze
from kpipe.train.transfer import feature_writer
from kpipe.train.transfer.feature_cache import CachedFeatures, FeatureConfig, split_frozen
from kpipe.train.transfer.feature_extraction import extract_features, remove_unused_features
from tests.train import tiny

CONFIG = TrainingConfig(epochs=3, learning_rate=0.02)


def frozen(last: int | None = 0) -> keras.Model:
    model = tiny.model()
    # A frozen normalization must use these statistics.
    model.get_layer("norm").moving_mean.assign([0.1, -0.2, 0.3, 0.0])
    unfreeze(model, last)
    return model


def extract(stem: keras.Model, folder: Path, config: FeatureConfig, data=tiny.data, **kwargs):
    validation = kwargs.pop("validation", tiny.validation())
    photos = tiny.training_data(data, validation, kwargs.pop("batch_names", None))
    return extract_features(stem, photos, config, folder, **kwargs)


def epochs_of(features: CachedFeatures, first: int, count: int) -> list[list[np.ndarray]]:
    """The features of each batch of some epochs."""
    taken = iter(features.training(first).take(count * tiny.STEPS))
    return [[next(taken)[0].numpy() for _ in range(tiny.STEPS)] for _ in range(count)]


def rows(epoch: list[np.ndarray]) -> set[tuple[float, ...]]:
    return {tuple(row) for batch in epoch for row in batch.reshape(len(batch), -1)}


def test_stem_and_tail_equal_the_model_and_share_its_weights() -> None:
    model = frozen()
    stem, tail = split_frozen(model)
    images = tiny.IMAGES[:8]
    np.testing.assert_allclose(tail(stem(images)), model(images), rtol=1e-6)
    assert {id(v) for v in tail.trainable_weights} == {id(v) for v in model.trainable_weights}
    assert stem.output.shape == (None, 4), "the head pools, so maps need not be kept"


def residual() -> keras.Model:
    """Raw operations around a nested model; the frozen part ends after the addition."""
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 1, name="first")(pixels)
    inner_in = keras.Input((8, 8, 4))
    inner = keras.Model(inner_in, keras.layers.Conv2D(4, 3, padding="same")(inner_in), name="inner")
    x = keras.ops.relu(inner(x) + x)
    x = keras.layers.GlobalMaxPooling2D()(x * 2.0)
    x = keras.layers.Dense(3, activation="softmax", name="logits")(x)
    return keras.Model(pixels, x)


def test_raw_operations_and_nested_models_are_split() -> None:
    model = residual()
    before = model.to_json()
    unfreeze(model, 0)
    stem, tail = split_frozen(model)
    images = tiny.IMAGES[:4]
    np.testing.assert_allclose(tail(stem(images)), model(images), rtol=1e-5)
    assert [v.path for v in tail.weights] == ["logits/kernel", "logits/bias"]
    model.trainable = True
    assert model.to_json().replace('"trainable": false', '"trainable": true') == before


@pytest.mark.parametrize("last", [0, 1])
def test_cached_and_live_training_of_a_frozen_phase_agree(last: int, tmp_path: Path) -> None:
    def run(trained: keras.Model, data, validation):
        return fit(trained, tiny.training_data(data, validation), CONFIG)

    def built() -> keras.Model:
        keras.utils.set_random_seed(1)
        pixels = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(4, 3, name="a")(pixels)
        x = keras.layers.BatchNormalization(name="a_norm")(keras.layers.Dropout(0.5, seed=3)(x))
        x = keras.layers.Conv2D(4, 3, name="b")(keras.layers.ReLU()(x))
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Dropout(0.3, seed=5)(x)
        x = keras.layers.Dense(tiny.CLASSES, activation="softmax")(x)
        model = keras.Model(pixels, x)
        unfreeze(model, last)
        return model

    live, cached = built(), built()
    expected = run(live, tiny.data, tiny.validation())
    stem, tail = split_frozen(cached)
    kept = extract(stem, tmp_path, FeatureConfig(views=3))
    result = run(tail, kept.training, kept.validation())
    assert result.best_epoch == expected.best_epoch
    for name, values in expected.history.items():
        np.testing.assert_allclose(result.history[name], values, rtol=1e-4, err_msg=name)
    # The whole model was trained through its tail; the dropout of the frozen part drew nothing.
    for got, value in zip(cached.weights, live.weights, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-5, err_msg=value.path)


def test_the_first_epochs_are_those_of_the_data_and_later_ones_their_views_permuted(
    tmp_path: Path,
) -> None:
    stem, _ = split_frozen(frozen())
    kept = extract(stem, tmp_path, FeatureConfig(views=2, seed=7), data=lambda first: shaded(first))
    live, predict = iter(shaded(0).take(2 * tiny.STEPS)), folded_inference(stem)
    expected = [[predict(next(live)[0]).numpy() for _ in range(tiny.STEPS)] for _ in range(2)]
    got = epochs_of(kept, 0, 6)
    np.testing.assert_array_equal(got[:2], expected)
    for epoch in range(2, 6):
        assert rows(got[epoch]) == rows(expected[epoch % 2]) != rows(expected[1 - epoch % 2])
        assert not np.array_equal(got[epoch], got[epoch - 2])


def shaded(first_epoch: int) -> tf.data.Dataset:
    """Each epoch darker than the one before, as an augmentation would change it."""
    epochs = tiny.data(first_epoch).enumerate()
    return epochs.map(
        lambda n, batch: (
            batch[0] / (1.0 + first_epoch + tf.cast(n // tiny.STEPS, tf.float32)),
            batch[1],
        )
    )


def test_an_epoch_depends_on_its_number_only(tmp_path: Path) -> None:
    stem, _ = split_frozen(frozen())
    kept = extract(stem, tmp_path, FeatureConfig(views=2, seed=-7))
    np.testing.assert_array_equal(epochs_of(kept, 0, 5)[3:], epochs_of(kept, 3, 2))
    other = CachedFeatures(tmp_path, FeatureConfig(views=2, seed=8))
    assert not np.array_equal(epochs_of(kept, 3, 1), epochs_of(other, 3, 1))


def names(epoch: int, batch: int) -> list[str]:
    """Return the names of the photos in a batch of `tiny.data`, from their index."""
    order = np.random.default_rng(epoch).permutation(len(tiny.LABELS))
    return [f"{place}.jpg" for place in order.reshape(tiny.STEPS, tiny.BATCH)[batch]]


@pytest.mark.parametrize("epoch", [0, 1, 2, 5])
def test_the_photos_of_a_batch_of_features_are_known_by_name(epoch: int, tmp_path: Path) -> None:
    def numbered(first_epoch: int) -> tf.data.Dataset:
        """Labels are indices into `tiny.IMAGES`."""
        return tiny.data(first_epoch).map(
            lambda x, _: (
                x,
                tf.argmin(tf.reduce_sum(abs(x[:, None] - tiny.IMAGES), (2, 3, 4)), axis=1),
            )
        )

    stem, _ = split_frozen(frozen())
    features = extract(stem, tmp_path, FeatureConfig(views=2, seed=4), numbered)
    for batch, (_, places) in enumerate(features.training(epoch).take(tiny.STEPS)):
        expected = [f"{place}.jpg" for place in places.numpy()]
        named = features.training_data(tiny.training_data(numbered, None, names))
        assert named.batch_names(epoch, batch) == expected


def test_photos_with_non_finite_features_are_named(tmp_path: Path) -> None:
    def broken(first_epoch: int) -> tf.data.Dataset:
        bad = tf.constant(tiny.IMAGES[9])
        return tiny.data(first_epoch).map(
            lambda x, y: (tf.where(tf.reduce_all(x == bad, (1, 2, 3), True), np.nan, x), y)
        )

    stem, _ = split_frozen(frozen())
    with pytest.raises(TrainingError, match=r"1 of 8 examples: 9\.jpg"):
        extract(stem, tmp_path, FeatureConfig(), broken, batch_names=names)


def test_labels_and_weights_stay_with_their_photos(tmp_path: Path) -> None:
    def told(images: tf.Tensor, labels: tf.Tensor):
        # Labels and weights that can be computed from the features.
        mean = tf.reduce_mean(images, (1, 2, 3))
        return images, tf.stack([mean, -mean], -1), mean * 3

    pixels = keras.Input((8, 8, 3))
    mean = keras.layers.GlobalAveragePooling2D()(pixels)
    stem = keras.Model(pixels, mean)
    validation = tiny.validation().map(told)
    kept = extract(
        stem,
        tmp_path,
        FeatureConfig(),
        data=lambda first: tiny.data(first).map(told),
        validation=validation,
    )
    seen = [*kept.training(0).take(3 * tiny.STEPS), *kept.validation()]
    assert len(seen) == 3 * tiny.STEPS + 2
    for features_, labels, weights in seen:
        mean = features_.numpy().mean(axis=1)
        np.testing.assert_allclose(labels, np.stack([mean, -mean], -1), rtol=1e-5)
        np.testing.assert_allclose(weights, mean * 3, rtol=1e-5)


def test_batches_of_uneven_size_are_kept(tmp_path: Path) -> None:
    def data(first_epoch: int) -> tf.data.Dataset:
        return tiny.data(first_epoch).rebatch([10, 10, 10, 2])

    stem, _ = split_frozen(frozen())
    kept = extract(stem, tmp_path, FeatureConfig(), data=data)
    for first in (0, 1):
        sizes = [len(x) for x, _ in kept.training(first).take(8)]
        assert sizes == [10, 10, 10, 2] * 2


def test_the_file_is_an_array_that_numpy_maps(tmp_path: Path) -> None:
    stem, _ = split_frozen(frozen())
    extract(stem, tmp_path, FeatureConfig(dtype="float16"))
    stored = np.load(tmp_path / "view-000" / "features.npy", mmap_mode="r")
    images = np.concatenate([x for x, _ in tiny.data(0).take(tiny.STEPS)])
    assert stored.dtype == np.float16 and stored.shape == (len(images), 4)
    np.testing.assert_allclose(stored, stem(images), rtol=1e-3)
    (batch, _), *_ = CachedFeatures(tmp_path, FeatureConfig(dtype="float16")).training(0).take(1)
    assert batch.dtype == tf.float32


def test_only_missing_views_are_computed(tmp_path: Path) -> None:
    asked: list[int] = []

    def data(first_epoch: int) -> tf.data.Dataset:
        def count(images: tf.Tensor, labels: tf.Tensor):
            def note(x: np.ndarray) -> np.ndarray:
                asked.append(first_epoch)
                return x

            return tf.ensure_shape(tf.numpy_function(note, [images], tf.float32), images.shape), (
                labels
            )

        return tiny.data(first_epoch).map(count)

    stem, _ = split_frozen(frozen())
    told: list[tuple[int, int]] = []
    extract(stem, tmp_path, FeatureConfig(views=3), data, progress=lambda *at: told.append(at))
    finished = ("view-000", "view-001", "view-002", "validation")

    def files() -> dict[Path, bytes]:
        return {p: p.read_bytes() for name in finished for p in (tmp_path / name).iterdir()}

    whole = files()
    assert told == [(n, 14) for n in range(1, 15)]
    # As after a kill: one view is missing, one is incomplete.
    shutil.rmtree(tmp_path / "view-002")
    (tmp_path / "view-001").rename(tmp_path / "view-001.part")
    asked.clear()
    told.clear()
    extract(stem, tmp_path, FeatureConfig(views=3), data, progress=lambda *at: told.append(at))
    assert set(asked) == {1, 2}
    assert told[0] == (4, 14) and told[-1] == (14, 14)
    assert files() == whole
    # Another training run may be writing it; remove_unused_features is tested separately.
    assert [path.name for path in tmp_path.glob("*.part")] == ["view-001.part"]


def in_place_of(view: Path, content: str | None) -> None:
    shutil.rmtree(view)
    if content is None:
        view.symlink_to("absent")
    else:
        view.write_text(content)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda view: os.truncate(view / "features.npy", 200),
    "one bit of a feature": lambda view: flip(view / "features.npy"),
    "one bit of a label": lambda view: flip(view / "labels.npy"),
    "no labels": lambda view: (view / "labels.npy").unlink(),
    "no bounds": lambda view: (view / "bounds.npy").unlink(),
    "emptied": lambda view: [file.unlink() for file in view.iterdir()],
    "torn digests": lambda view: (view / "sha256.json").write_text("{"),
    "digests of another type": lambda view: (view / "sha256.json").write_text("null"),
    "a folder in place of a file": lambda view: in_place_of_features(view),
    "a file in place of the view": lambda view: in_place_of(view, "x"),
    "a dangling link": lambda view: in_place_of(view, None),
}


def in_place_of_features(view: Path) -> None:
    (view / "features.npy").unlink()
    (view / "features.npy").mkdir()


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_view_is_named_and_computed_again(name: str, tmp_path: Path) -> None:
    stem, _ = split_frozen(frozen())
    extract(stem, tmp_path, FeatureConfig())
    view = tmp_path / "view-000"
    expected = {file.name: file.read_bytes() for file in view.iterdir()}
    DAMAGES[name](view)
    with pytest.warns(UserWarning, match="view-000: .*computed again"):
        extract(stem, tmp_path, FeatureConfig())
    assert {file.name: file.read_bytes() for file in view.iterdir()} == expected


def test_two_trainings_may_compute_the_same_features_at_once(tmp_path: Path) -> None:
    stem, _ = split_frozen(frozen())

    def overtaken(first_epoch: int) -> tf.data.Dataset:
        # The other run finishes before this one has read its data.
        extract(stem, tmp_path, FeatureConfig(views=2))
        return tiny.data(first_epoch)

    kept = extract(stem, tmp_path, FeatureConfig(views=2), overtaken)
    alone = extract(stem, tmp_path / "alone", FeatureConfig(views=2))
    for one, other in zip(epochs_of(kept, 0, 3), epochs_of(alone, 0, 3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not list(tmp_path.glob("*.part"))


def test_only_features_unused_for_long_are_removed(tmp_path: Path) -> None:
    stem, _ = split_frozen(frozen())
    for name in ("used", "old", "cut off"):
        extract(stem, tmp_path / name, FeatureConfig())
    left, begun = tmp_path / "cut off" / "view-001-1.part", tmp_path / "used" / "view-001-2.part"
    left.mkdir()
    begun.mkdir()
    weeks_ago = time.time() - 15 * 24 * 3600
    for path in [left, tmp_path / "old", *(tmp_path / "old").iterdir()]:
        os.utime(path, (weeks_ago, weeks_ago))
    remove_unused_features(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut off", "used"]
    for name in ("used", "cut off"):
        extract(stem, tmp_path / name, FeatureConfig())
    assert not left.exists() and begun.exists()
    remove_unused_features(tmp_path / "missing")


def test_without_validation_there_is_none(tmp_path: Path) -> None:
    stem, _ = split_frozen(frozen())
    assert extract(stem, tmp_path, FeatureConfig(), validation=None).validation() is None


def test_features_of_another_stem_are_rejected(tmp_path: Path) -> None:
    stem, _ = split_frozen(frozen())
    extract(stem, tmp_path, FeatureConfig())
    stem.get_layer("conv").kernel.assign(stem.get_layer("conv").kernel * 2)
    with pytest.raises(TrainingError, match="other features: weights of the frozen part"):
        extract(stem, tmp_path, FeatureConfig())


def refuse(what: str, act: Callable[[], object]) -> None:
    with pytest.raises(TrainingError, match=what):
        act()


def test_invalid_features_are_rejected_and_leave_no_files(tmp_path: Path, monkeypatch) -> None:
    stem, _ = split_frozen(frozen())
    few = lambda first: tiny.data(first).take(3)  # noqa: E731
    refuse("ended early", lambda: extract(stem, tmp_path / "a", FeatureConfig(), few))
    no_labels = lambda first: tiny.data(first).map(lambda x, y: x)  # noqa: E731
    refuse("no labels", lambda: extract(stem, tmp_path / "b", FeatureConfig(), no_labels))
    bright = lambda first: tiny.data(first).map(lambda x, y: (x * 1e7, y))  # noqa: E731
    half = FeatureConfig(dtype="float16")
    refuse("not finite", lambda: extract(stem, tmp_path / "c", half, bright))
    usage = shutil.disk_usage(tmp_path)._replace(free=600)
    monkeypatch.setattr(feature_writer.shutil, "disk_usage", lambda path: usage)
    # 32 photos of 4 float32 numbers are 512 bytes; 16 of validation are 256.
    refuse("not enough disk space", lambda: extract(stem, tmp_path / "d", FeatureConfig()))
    extract(stem, tmp_path / "e", FeatureConfig(), validation=None)
    assert not list(tmp_path.glob("*/*.part"))
    assert not list(tmp_path.glob("[abcd]/view*"))


def test_a_model_without_a_frozen_part_is_not_split() -> None:
    refuse("cannot be split", lambda: split_frozen(frozen(None)))
    model = frozen()
    model.trainable = False
    refuse("cannot be split", lambda: split_frozen(model))


@pytest.mark.parametrize("wrong", [{"views": 0}, {"dtype": "int8"}])
def test_an_invalid_config_is_rejected(wrong: dict) -> None:
    refuse("views is out of range|unknown dtype", lambda: FeatureConfig(**wrong))


def test_an_interrupted_start_of_a_folder_does_not_block_it(tmp_path: Path) -> None:
    stem, _ = split_frozen(frozen())
    (tmp_path / ".0123-about.json").write_text("{")  # as a kill within its write leaves it
    (tmp_path / "stray.part").write_text("")
    extract(stem, tmp_path, FeatureConfig())
    (tmp_path / "about.json").write_text("{")
    refuse("cannot be read", lambda: extract(stem, tmp_path, FeatureConfig()))


@pytest.mark.slow
def test_a_full_disk_does_not_block_the_next_training(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; "
        "from kpipe.errors import TrainingError; from kpipe.resume_identity import claim; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)); "
        "claim(Path(sys.argv[1]), {'x': 'x' * 100}, 'other', error=TrainingError)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "about.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_sequential_model_is_split_too() -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax", name="head"),
        ]
    )
    unfreeze(model, 0)
    stem, tail = split_frozen(model)
    images = tiny.IMAGES[:4]
    np.testing.assert_allclose(tail(stem(images)), model(images), rtol=1e-6)


def test_training_runs_that_share_features_differ_in_their_order(tmp_path: Path) -> None:
    stem, _ = split_frozen(frozen())
    own = extract(stem, tmp_path, FeatureConfig(views=2), data=lambda first: shaded(first))
    shared = [
        CachedFeatures(
            tmp_path, FeatureConfig(views=2, seed=seed, source=tiny.training_data(tiny.data, None))
        )
        for seed in (1, 2)
    ]
    views = epochs_of(own, 0, 2)
    orders = [epochs_of(features, 0, 4) for features in shared]
    for features, epochs in zip(shared, orders, strict=True):
        assert [rows(epoch) for epoch in epochs] == [rows(view) for view in (*views, *views)]
        resumed = epochs_of(features, 2, 1)[0]
        np.testing.assert_array_equal(np.concatenate(resumed), np.concatenate(epochs[2]))
    first = [np.concatenate(epochs[0]) for epochs in (views[:1], *orders)]
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[1], first[2])


def test_an_epoch_reads_the_rows_that_are_named(tmp_path: Path) -> None:
    stem, _ = split_frozen(frozen())
    whole = extract(stem, tmp_path, FeatureConfig(views=2), data=lambda first: shaded(first))
    count = sum(len(batch) for batch in epochs_of(whole, 0, 1)[0])
    chosen = np.random.default_rng(0).integers(0, count, (2, count))
    drawn = CachedFeatures(tmp_path, FeatureConfig(views=2, rows=chosen))
    for view, (expected, got) in enumerate(
        zip(epochs_of(whole, 0, 2), epochs_of(drawn, 0, 2), strict=True)
    ):
        np.testing.assert_array_equal(np.concatenate(got), np.concatenate(expected)[chosen[view]])
    named = drawn.training_data(
        tiny.training_data(tiny.data, None, lambda epoch, batch: [f"{epoch}/{batch}"] * count)
    )
    assert named.batch_names is not None
    assert set(named.batch_names(0, 0)) <= {f"0/{batch}" for batch in range(tiny.STEPS)}
    for wrong in (chosen[:, 1:], chosen + count, chosen - 1):
        with pytest.raises(TrainingError, match="rows does not fit"):
            CachedFeatures(tmp_path, FeatureConfig(views=2, rows=wrong)).training(0)
    with pytest.raises(TrainingError, match="rows does not fit"):
        FeatureConfig(views=3, rows=chosen)
