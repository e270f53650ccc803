from __future__ import annotations

import numpy as np
import pytest

from kpipe.data import class_weight
from kpipe.errors import DataError


def test_weights_are_photos_over_classes_times_count() -> None:
    labels = np.repeat([0, 1, 2], [6, 3, 1])
    weights = class_weight(labels)
    assert weights == pytest.approx({0: 10 / 18, 1: 10 / 9, 2: 10 / 3})
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1)


def test_every_class_weighs_the_same_in_sum() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 200)
    weights = class_weight(labels, classes=list("abcde"))
    sums = np.bincount(labels, [weights[label] for label in labels])
    np.testing.assert_allclose(sums, 40)


def test_absent_classes_are_named() -> None:
    with pytest.raises(DataError, match="no label of class 'b', 'd'"):
        class_weight([0, 2, 2], classes=["a", "b", "c", "d"])
    with pytest.raises(DataError, match="no label of class 1"):
        class_weight([0, 2, 2])


@pytest.mark.parametrize("labels", [[], [0.5, 1.0], [[0, 1]], ["a", "b"]])
def test_what_is_no_label_is_refused(labels: list) -> None:
    with pytest.raises(DataError, match="labels must be class indices"):
        class_weight(labels)


def test_labels_beyond_the_classes_are_named() -> None:
    with pytest.raises(DataError, match=r"labels \[-1, 2\]"):
        class_weight([-1, 0, 1, 2], classes=["a", "b"])
