from __future__ import annotations

import numpy as np
import pytest

from kpipe.errors import SparsityError, TrainingError
from kpipe.labels import all_class_weights, labels_in_range


def test_classes_that_are_not_named_count_once() -> None:
    assert all_class_weights({2: 3, 0: 0.5}, 4, TrainingError) == {0: 0.5, 1: 1.0, 2: 3.0, 3: 1.0}


@pytest.mark.parametrize("weights", [None, {}])
def test_no_weights_stay_none(weights: dict[int, float] | None) -> None:
    assert all_class_weights(weights, 4, TrainingError) is None


def test_a_class_without_an_answer_is_refused_by_number() -> None:
    with pytest.raises(SparsityError, match="without an answer: 4\n  expected: 0 to 3"):
        all_class_weights({0: 1.0, 4: 2.0}, 4, SparsityError)


@pytest.mark.parametrize(
    "wrong",
    [{0.5: 1.0}, {"cat": 2.0}, {True: 1.0}, {-1: 1.0}, {0: -1.0}, {0: float("nan")}, {0: None}],
)
def test_what_is_no_class_or_no_factor_is_refused(wrong: dict) -> None:
    (named,) = wrong
    with pytest.raises(TrainingError, match=rf"not right about.*{named}"):
        all_class_weights(wrong, None, TrainingError)


@pytest.mark.parametrize("wrong", [[1.0, 2.0], np.ones(2), 3])
def test_factors_without_classes_are_refused(wrong) -> None:
    with pytest.raises(TrainingError, match="names classes"):
        all_class_weights(wrong, 2, TrainingError)


def test_numbers_of_numpy_are_numbers_and_unknown_classes_are_not_counted() -> None:
    assert all_class_weights({np.int64(2): np.float32(0.5)}, None, TrainingError) == {2: 0.5}


def test_other_errors_of_tensorflow_pass() -> None:
    import tensorflow as tf

    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="Incompatible shapes"),
        labels_in_range(3, TrainingError),
    ):
        tf.constant([1.0, 2.0]) + tf.constant([1.0, 2.0, 3.0])
