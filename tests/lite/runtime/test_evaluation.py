from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from kpipe.errors import ExportError
from kpipe.lite import LiteModel, evaluate
from tests.lite.conftest import photos

IMAGES = photos(30, seed=3)
LABELS = np.random.default_rng(0).integers(0, 2, 30)  # class 2 does not occur


def test_measures_equal_those_of_scikit_learn(float_file):
    predicted = LiteModel(float_file).predict(IMAGES).argmax(axis=1)
    found = evaluate(float_file, (IMAGES, LABELS))
    assert found.images == 30
    assert found.accuracy == pytest.approx(accuracy_score(LABELS, predicted))
    # scikit-learn warns of predictions outside the true classes
    with pytest.warns(UserWarning, match="y_pred contains") if (predicted == 2).any() else _quiet():
        assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(LABELS, predicted))
    np.testing.assert_array_equal(
        found.confusion, confusion_matrix(LABELS, predicted, labels=[0, 1, 2])
    )


def _quiet():
    import contextlib

    return contextlib.nullcontext()


def test_batches_and_arrays_give_the_same(float_file):
    whole = evaluate(float_file, (IMAGES, LABELS))
    parts = evaluate(float_file, ((IMAGES[i : i + 7], LABELS[i : i + 7]) for i in range(0, 30, 7)))
    np.testing.assert_array_equal(whole.probabilities, parts.probabilities)
    assert whole.to_dict() == parts.to_dict()


def test_agreement_and_worst_difference_against_a_reference(float_file):
    probabilities = LiteModel(float_file).predict(IMAGES)
    reference = probabilities.copy()
    reference[0] = np.roll(probabilities[0], 1)
    found = evaluate(float_file, (IMAGES, LABELS), reference=reference)
    assert found.agreement == pytest.approx(29 / 30)
    assert found.worst_difference == pytest.approx(np.abs(probabilities[0] - reference[0]).max())
    alone = evaluate(float_file, (IMAGES, LABELS))
    assert (alone.agreement, alone.worst_difference) == (None, None)


@pytest.mark.parametrize("workers", [1, 2, 5, None])
def test_any_number_of_workers_gives_the_same(float_file, workers):
    expected = LiteModel(float_file).predict(IMAGES)
    found = evaluate(float_file, (IMAGES, LABELS), workers=workers)
    np.testing.assert_array_equal(found.probabilities, expected)


def test_the_images_farthest_from_the_reference_are_kept(float_file):
    probabilities = LiteModel(float_file).predict(IMAGES)
    reference = probabilities.copy()
    for position, distance in ((11, 0.3), (4, 0.2), (25, 0.25)):
        least = probabilities[position].argmin()
        reference[position, least] += distance
    data = [(IMAGES[i : i + 7], LABELS[i : i + 7]) for i in range(0, 30, 7)]
    found = evaluate(float_file, data, reference=reference, differences=2)
    assert [one.position for one in found.differences] == [11, 25]
    far = found.differences[0]
    np.testing.assert_array_equal(far.image, IMAGES[11])
    assert far.difference == pytest.approx(found.worst_difference, abs=1e-6)
    assert (far.label, far.answer) == (LABELS[11], probabilities[11].argmax())
    assert far.reference == reference[11].argmax()
    assert evaluate(float_file, data).differences == ()


def test_to_dict_survives_json(float_file):
    found = evaluate(float_file, (IMAGES, LABELS)).to_dict()
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("data", "reference", "message"),
    [
        ((IMAGES, LABELS), np.zeros((29, 3)), "reference"),
        ((IMAGES, LABELS[:5]), None, "labels do not fit"),
        ((IMAGES, LABELS.astype(float)), None, "labels do not fit"),
        ((IMAGES, LABELS + 2), None, "no output for: 3"),
        ([], None, "no images"),
        ([(IMAGES, LABELS, LABELS)], None, r"(.|\n)*received: ndarray, ndarray, ndarray"),
        ((IMAGES, LABELS, LABELS), None, r"(.|\n)*received: ndarray, ndarray, ndarray"),
        (([IMAGES, LABELS], [IMAGES, LABELS]), None, r"kind of batch(.|\n)*batches as a list"),
        (({"image": IMAGES}, LABELS), None, r"kind of batch(.|\n)*received: dict, ndarray"),
        (([IMAGES, IMAGES], [LABELS, LABELS]), None, "several batches as a list"),
        ([IMAGES], None, r"kind of batch(.|\n)*received: ndarray"),
    ],
)
def test_data_that_does_not_fit_is_refused(float_file, data, reference, message):
    with pytest.raises(ExportError, match=message):
        evaluate(float_file, data, reference=reference)


@pytest.mark.parametrize("count", [{"workers": -1}, {"differences": -1}])
def test_invalid_numbers_are_refused(float_file, count):
    ((name, value),) = count.items()
    with pytest.raises(ExportError, match=f"{name}={value!r}"):
        evaluate(float_file, (IMAGES, LABELS), **count)


def test_a_reference_may_be_a_list(float_file):
    reference = LiteModel(float_file).predict(IMAGES)
    found = evaluate(float_file, (IMAGES, LABELS), reference=reference.tolist())
    assert found.agreement == 1
