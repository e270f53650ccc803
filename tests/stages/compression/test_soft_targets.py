"""Batches with a teacher's predictions against their formula."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kpipe.data import Manifest, Mixer, problem_table
from kpipe.stages.compression.soft_targets import SoftTargets, Unlabelled
from kpipe.stages.compression.teachers import Teacher
from kpipe.stages.photos.photo_dataset import PhotoDataset, spread
from tests.stages.conftest import toy

WEIGHTS = {0: 1.0, 1: 2.0, 2: 4.0}


@pytest.fixture
def teacher() -> Teacher:
    return Teacher(toy(5), "five")


def unlabelled(photos: PhotoDataset, count: int) -> Unlabelled:
    """The first photos, as if nobody had labelled them."""
    table = photos.manifest.table.head(count).assign(label="unlabelled", split="train")
    return Unlabelled(Manifest(table, ("unlabelled",), problem_table()), photos.images[:count])


def with_teacher(
    photos: PhotoDataset, teacher: Teacher, further: Unlabelled | None = None, weight: float = 3.0
) -> PhotoDataset:
    return dataclasses.replace(photos, soft_targets=SoftTargets(teacher, weight, further))


def first_epoch(photos: PhotoDataset, epoch: int = 0) -> list[tuple[np.ndarray, ...]]:
    batches = photos.training_dataset(epoch).take(photos.steps_per_epoch)
    return list(batches.as_numpy_iterator())


@pytest.mark.parametrize("mixed", [False, True])
def test_labels_are_mixed_with_the_teachers_predictions(
    photos: PhotoDataset, teacher: Teacher, mixed: bool
) -> None:
    if mixed:
        photos = dataclasses.replace(photos, mixer=Mixer(mix_up=0.4))
    weighted = dataclasses.replace(photos, class_weight=WEIGHTS)
    plain, taught = first_epoch(weighted), first_epoch(with_teacher(weighted, teacher))
    assert len(plain) == len(taught)
    for (images, labels, *weights), (same, soft, factors) in zip(plain, taught, strict=True):
        np.testing.assert_array_equal(images, same)
        hard = labels if mixed else np.eye(3)[labels]
        expected = (hard + 3 * np.array(teacher.model(images))) / 4
        np.testing.assert_allclose(soft, expected, atol=1e-5)
        of_labels = weights[0] if mixed else np.take(list(WEIGHTS.values()), labels)
        np.testing.assert_allclose(factors, of_labels, rtol=1e-6)
    assert with_teacher(weighted, teacher).fit_class_weight is None


def test_unlabelled_photos_have_the_teachers_predictions_alone(
    photos: PhotoDataset, teacher: Teacher
) -> None:
    taught = with_teacher(photos, teacher, unlabelled(photos, 20))
    epoch = first_epoch(taught)
    # 36 labelled photos and 20 without labels, in batches of 8.
    turns = spread(5, 3).tolist()
    assert len(epoch) == taught.steps_per_epoch == 8 and sum(turns) == 3
    for (images, soft), alone in zip(epoch, turns, strict=True):
        predictions = np.array(teacher.model(images))
        assert bool(np.allclose(soft, predictions, atol=1e-5)) == alone
    counts = [
        sum(len(i) for (i, _), t in zip(epoch, turns, strict=True) if t is kind)
        for kind in (True, False)
    ]
    assert counts == [20, len(photos.manifest.rows("train"))]


def test_a_later_epoch_is_the_same_from_the_start_or_resumed(
    photos: PhotoDataset, teacher: Teacher
) -> None:
    taught = with_teacher(photos, teacher, unlabelled(photos, 20))
    steps = taught.steps_per_epoch
    later = list(taught.training_dataset(0).skip(steps).take(steps).as_numpy_iterator())
    for one, other in zip(later, first_epoch(taught, 1), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_each_batch_has_the_names_of_its_photos(photos: PhotoDataset, teacher: Teacher) -> None:
    taught = with_teacher(photos, teacher, unlabelled(photos, 20))
    place = {path: n for n, path in enumerate(photos.manifest.table["path"])}
    for number, (images, _) in enumerate(first_epoch(taught)):
        rows = [place[path] for path in taught.batch_names(0, number)]
        np.testing.assert_array_equal(images, photos.images[rows])


def test_a_small_student_trains_on_what_the_teacher_says_of_the_large_photo(
    photos: PhotoDataset, teacher: Teacher
) -> None:
    large, small = with_teacher(photos, teacher), with_teacher(photos, teacher).resized(16)
    for (_, labels), (images, same) in zip(first_epoch(large), first_epoch(small), strict=True):
        np.testing.assert_array_equal(labels, same)
        assert images.shape[1:] == (16, 16, 3)


def test_what_labels_depend_on_is_part_of_the_key(photos: PhotoDataset, teacher: Teacher) -> None:
    several = [
        photos,
        with_teacher(photos, teacher),
        with_teacher(photos, teacher, weight=1.0),
        with_teacher(photos, Teacher(teacher.model, "other")),
        with_teacher(photos, teacher, unlabelled(photos, 20)),
    ]
    keys = [str(each.identity) for each in several]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(("labelled", "further"), [(5, 0), (5, 3), (2, 9), (4, 4)])
def test_unlabelled_batches_are_spread_evenly(labelled: int, further: int) -> None:
    turns = spread(labelled, further)
    assert (~turns).sum() == labelled and turns.sum() == further
    so_far = np.arange(1, len(turns) + 1) * further / len(turns)
    assert np.abs(turns.cumsum() - so_far).max() < 1
