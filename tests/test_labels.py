from __future__ import annotations

import pytest

from kpipe.errors import SparsityError, TrainingError
from kpipe.labels import all_class_weights, labels_in_range


def test_classes_that_are_not_named_count_once() -> None:
    assert all_class_weights({2: 3, 0: 0.5}, 4, TrainingError) == {0: 0.5, 1: 1.0, 2: 3.0, 3: 1.0}


@pytest.mark.parametrize("weights", [None, {}])
def test_no_weights_stay_none(weights: dict[int, float] | None) -> None:
    assert all_class_weights(weights, 4, TrainingError) is None


@pytest.mark.parametrize("label", [-1, 4])
def test_a_class_without_an_answer_is_refused_by_number(label: int) -> None:
    with pytest.raises(SparsityError, match=f"without an answer: {label}\n  expected: 0 to 3"):
        all_class_weights({0: 1.0, label: 2.0}, 4, SparsityError)


def test_other_errors_of_tensorflow_pass() -> None:
    import tensorflow as tf

    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="Incompatible shapes"),
        labels_in_range(3, TrainingError),
    ):
        tf.constant([1.0, 2.0]) + tf.constant([1.0, 2.0, 3.0])
