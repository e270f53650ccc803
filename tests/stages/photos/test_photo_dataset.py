from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from kpipe.core.journal import Journal, read_journal
from kpipe.core.stage import Context, Stage
from kpipe.data import Manifest, Mixer, Sampling, class_weight
from kpipe.errors import DataError
from kpipe.stages import Augment, Balance, FilterPrune, FineTune, MagnitudePrune
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.model_folder import save_model


def notes(events) -> str:
    return "\n".join(event["text"] for event in events if event["event"] == "note")


def test_the_augmentation_makes_the_round_trip(perform, data_folder: Path) -> None:
    changes = {"flip": "vertical", "rotate": 0.25, "color": 0.3, "crop": 0.5}
    folder, _ = perform(Augment(**changes), data=data_folder)
    photos = read(data_folder, augmentation=folder)
    assert photos.augmenter is not None and photos.mixer is None
    assert {name: getattr(photos.augmenter, name) for name in changes} == changes


def test_the_mixing_makes_the_round_trip(perform, data_folder: Path) -> None:
    folder, _ = perform(Augment(mix_up=0.4, cut_mix=0.3), data=data_folder)
    assert read(data_folder, augmentation=folder).mixer == Mixer(mix_up=0.4, cut_mix=0.3)


def test_the_balance_makes_the_round_trip(perform, data_folder: Path) -> None:
    weighted = read(data_folder, balance=perform(Balance(), data=data_folder)[0])
    labels = weighted.manifest.labels("train")
    assert (weighted.sampling, weighted.class_weight) == (None, class_weight(labels))
    assert weighted.fit_class_weight == weighted.class_weight
    stage = Balance("undersample", ratio=0.9)
    sampled = read(data_folder, balance=perform(stage, data=data_folder)[0])
    assert (sampled.sampling, sampled.class_weight) == (Sampling("undersample", 0.9), None)
    both = Balance("oversample", and_class_weight=True)
    folder, _ = perform(both, data=data_folder)
    photos = read(data_folder, balance=folder)
    assert photos.sampling == Sampling("oversample")
    assert photos.class_weight == pytest.approx({0: 1, 1: 1, 2: 1})


def test_an_epoch_is_as_long_as_sampling_makes_it(perform, data_folder: Path) -> None:
    counts = np.bincount(Manifest.load(data_folder).labels("train"))
    for method, each in (("oversample", counts.max()), ("undersample", counts.min())):
        photos = read(data_folder, balance=perform(Balance(method), data=data_folder)[0])
        batches = [
            labels.numpy() for _, labels in photos.training_dataset(0).take(photos.steps_per_epoch)
        ]
        assert np.bincount(np.concatenate(batches)).tolist() == [each] * 3


def test_of_the_minority_the_repeats_alone_are_changed(perform, data_folder: Path) -> None:
    balance, _ = perform(Balance("augment_minority"), data=data_folder)
    augmentation, _ = perform(Augment(flip="", brightness=0.3), data=data_folder)
    photos = read(data_folder, balance=balance, augmentation=augmentation)
    batches = list(photos.training_dataset(0).take(photos.steps_per_epoch))
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    raw = {image.astype(np.float32).tobytes() for image in photos.images}
    changed = np.array([image.tobytes() not in raw for image in images])
    counts = np.bincount(photos.manifest.labels("train"))
    assert np.bincount(labels[changed], minlength=3).tolist() == (counts.max() - counts).tolist()


def test_without_an_augment_the_repeats_are_changed_by_its_defaults_and_that_is_told(
    perform, data_folder: Path, tmp_path: Path
) -> None:
    balance, _ = perform(Balance("augment_minority"), data=data_folder)
    journal = Journal(tmp_path / "told.jsonl")
    inputs = {"data": (data_folder,), "balance": (balance,)}
    photos = PhotoDataset.read(Context(tmp_path, inputs, 3, journal))
    declared, _ = perform(Augment(), data=data_folder)
    assert photos.augmenter == read(data_folder, augmentation=declared).augmenter
    assert "no Augment is declared" in notes(read_journal(journal.path))
    for method in ("oversample", "class_weight"):
        other = read(data_folder, balance=perform(Balance(method), data=data_folder)[0])
        assert other.augmenter is None


def test_mixed_photos_bring_their_weights_along(perform, data_folder: Path) -> None:
    balance, _ = perform(Balance(), data=data_folder)
    augmentation, _ = perform(Augment(mix_up=0.4), data=data_folder)
    photos = read(data_folder, balance=balance, augmentation=augmentation)
    assert photos.fit_class_weight is None and photos.class_weight is not None
    for images, labels, weights in photos.training_dataset(0).take(photos.steps_per_epoch):
        assert labels.shape == (len(images), 3) and weights.shape == (len(images),)
        np.testing.assert_allclose(labels.numpy().sum(axis=1), 1, rtol=1e-5)
        low, high = min(photos.class_weight.values()), max(photos.class_weight.values())
        assert ((weights > low - 1e-5) & (weights < high + 1e-5)).numpy().all()
    unweighted = read(data_folder, augmentation=augmentation)
    assert len(unweighted.training_dataset(0).element_spec) == 2


def test_validation_has_labels_of_the_kind_that_training_has(perform, data_folder: Path) -> None:
    augmentation, _ = perform(Augment(mix_up=0.4), data=data_folder)
    mixed, plain = read(data_folder, augmentation=augmentation), read(data_folder)
    labels = np.concatenate([labels for _, labels in mixed.evaluation_dataset("validation")])
    np.testing.assert_array_equal(labels, np.eye(3)[plain.manifest.labels("validation")])
    for images, others in zip(
        mixed.evaluation_dataset("validation"), plain.evaluation_dataset("validation"), strict=True
    ):
        np.testing.assert_array_equal(images[0], others[0])
    assert next(iter(plain.evaluation_dataset("validation")))[1].dtype == "int32"


def read(data: Path, **inputs: Path) -> PhotoDataset:
    found = {kind: (folder,) for kind, folder in {"data": data, **inputs}.items()}
    return PhotoDataset.read(Context(data, found, 3, None), batch_size=7)  # type: ignore[arg-type]


def test_a_sample_of_large_batches_is_one_that_a_distiller_takes(
    photos: PhotoDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PhotoDataset, "steps_per_epoch", 100)
    for size, steps in [(32, 20), (500, 20), (501, 19), (1024, 9), (20_000, 1)]:
        sample = dataclasses.replace(photos, batch_size=size).sample()
        assert int(sample.cardinality()) == steps


def test_evaluation_sees_the_raw_pixels_in_the_order_of_the_manifest(
    perform, data_folder: Path
) -> None:
    strong = Augment(flip="horizontal_and_vertical", rotate=0.5, brightness=1.0, crop=0.1)
    photos = read(data_folder, augmentation=perform(strong, data=data_folder)[0])
    for split in ("validation", "test"):
        batches = list(photos.evaluation_dataset(split))
        images = np.concatenate([images for images, _ in batches])
        rows = photos.manifest.rows(split)
        np.testing.assert_array_equal(images, photos.images[rows].astype(np.float32))
        labels = np.concatenate([labels for _, labels in batches])
        np.testing.assert_array_equal(labels, photos.manifest.labels(split))


def test_training_sees_each_training_photo_once_an_epoch(photos: PhotoDataset) -> None:
    batches = list(photos.training_dataset(0).take(photos.steps_per_epoch))
    images = np.concatenate([images for images, _ in batches]).astype(np.uint8)
    expected = photos.images[photos.manifest.rows("train")]
    assert {image.tobytes() for image in images} == {image.tobytes() for image in expected}
    assert len(images) == len(expected)
    assert photos.steps_per_epoch == -(-len(expected) // photos.batch_size)


def test_training_from_an_epoch_on_is_training_that_went_on(perform, data_folder: Path) -> None:
    photos = read(data_folder, augmentation=perform(Augment(), data=data_folder)[0])
    whole = list(photos.training_dataset(0).take(2 * photos.steps_per_epoch))[
        photos.steps_per_epoch :
    ]
    resumed = list(photos.training_dataset(1).take(photos.steps_per_epoch))
    for (one, its), (other, others) in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(its, others)


def test_varied_photos_come_in_another_order_with_another_strength(
    perform, data_folder: Path
) -> None:
    photos = read(data_folder, augmentation=perform(Augment(rotate=0.1), data=data_folder)[0])
    varied = photos.reseeded(99, 0.5)
    assert photos.augmenter is not None and varied.augmenter is not None
    assert varied.augmenter.rotate == pytest.approx(0.05)
    assert photos.augmenter.rotate == 0.1
    plain = read(data_folder)
    orders = [
        list(p.training_dataset(0).take(p.steps_per_epoch))
        for p in (plain, plain.reseeded(99, 1.0))
    ]
    labels = [np.concatenate([labels for _, labels in order]) for order in orders]
    assert not np.array_equal(*labels)
    np.testing.assert_array_equal(np.sort(labels[0]), np.sort(labels[1]))


def test_images_of_other_photos_are_refused(data_folder: Path, tmp_path: Path) -> None:
    torn = Path(shutil.copytree(data_folder, tmp_path / "torn"))
    np.save(torn / "images.npy", np.load(torn / "images.npy")[:-1])
    with pytest.raises(DataError, match="59 images for 60 photos"):
        read(torn)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage",
    [
        FineTune("MobileNet", alpha=0.25, weights=None, retrain_last=0, epochs=1),
        FilterPrune(macs=0.7, rounds=1, last_epochs=1),
        MagnitudePrune(epochs=1, last_epochs=1),
    ],
    ids=lambda stage: stage.name,
)
def test_every_training_takes_photos_that_are_sampled_weighted_and_mixed(
    stage: Stage, perform, data_folder: Path, tmp_path: Path
) -> None:
    both = Balance("oversample", ratio=0.9, and_class_weight=True)
    inputs = {
        "data": data_folder,
        "balance": perform(both, data=data_folder)[0],
        "augmentation": perform(Augment(mix_up=0.4), data=data_folder)[0],
    }
    if stage.name != "FineTune":
        pixels = keras.Input((32, 32, 3))
        x = keras.layers.Conv2D(16, 3, strides=4, activation="relu")(pixels)
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(16, 3)(x))
        x = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalMaxPooling2D()(x))
        inputs["model"] = tmp_path / "model"
        inputs["model"].mkdir()
        save_model(keras.Model(pixels, x), inputs["model"], title="toy")
    folder, events = perform(stage, **inputs)
    epochs = [event["metrics"] for event in events if event["event"] == "epoch"]
    assert len(epochs) == (2 if stage.name == "MagnitudePrune" else 1)
    for metrics in epochs:
        assert np.isfinite(list(metrics.values())).all()
        assert {"loss", "accuracy"} <= set(metrics)
    assert (folder / "model.keras").exists()
