from __future__ import annotations

import numpy as np
import pytest

from kpipe.class_indices import complete_class_weights, translate_label_errors
from kpipe.errors import SparsityError, TrainingError


def test_unnamed_classes_have_weight_one() -> None:
    assert complete_class_weights({2: 3, 0: 0.5}, 4, TrainingError) == {
        0: 0.5,
        1: 1.0,
        2: 3.0,
        3: 1.0,
    }


@pytest.mark.parametrize("weights", [None, {}])
def test_no_weights_stay_none(weights: dict[int, float] | None) -> None:
    assert complete_class_weights(weights, 4, TrainingError) is None


def test_a_class_without_an_output_is_refused_by_number() -> None:
    with pytest.raises(SparsityError, match="without an output: 4\n  expected: 0 to 3"):
        complete_class_weights({0: 1.0, 4: 2.0}, 4, SparsityError)


@pytest.mark.parametrize("wrong", [{-1: 1.0}, {0: -1.0}, {0: float("nan")}])
def test_negative_classes_and_invalid_weights_are_refused(wrong: dict) -> None:
    (named,) = wrong
    with pytest.raises(TrainingError, match=rf"invalid for class {named}"):
        complete_class_weights(wrong, None, TrainingError)


def test_numpy_weights_of_an_unknown_number_of_classes_are_converted() -> None:
    assert complete_class_weights({np.int64(2): np.float32(0.5)}, None, TrainingError) == {2: 0.5}


def test_other_tensorflow_errors_pass() -> None:
    import tensorflow as tf

    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="Incompatible shapes"),
        translate_label_errors(3, TrainingError),
    ):
        tf.constant([1.0, 2.0]) + tf.constant([1.0, 2.0, 3.0])
