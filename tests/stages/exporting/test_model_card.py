"""The model card: training data, accuracy, and known limits."""

from __future__ import annotations

from typing import Any

from kpipe.stages.exporting.model_card import model_card

COUNTS = {"cat": [1200, 40, 50], "dog|wolf": [300, 10, 20]}
ROW: dict[str, Any] = {
    "file": "model.tflite",
    "name": "Toy, int8",
    "size": 1_234_567,
    "accuracy": 0.9,
    "balanced_accuracy": 0.875,
    "keras_accuracy": 0.914,
    "agreement": 0.986,
    "lost": 1,
    "won": 0,
    "images": 70,
    "confusion": [[47, 3], [4, 16]],
    "calibration": {
        "temperature": 1.314,
        "bins": 15,
        "validation": {"photos": 50},
        "test": {"ece_before": 0.0812, "ece": 0.0234, "ece_by_chance": 0.0345, "debiased": 0.0123},
        "coverage": None,
        "threshold": None,
    },
}


def card(row: dict[str, Any] = ROW, counts: dict[str, list[int]] = COUNTS, **declared: str) -> str:
    metrics = {"seed": 7, "image_size": 96, "final": "model.tflite", "models": [row]}
    return model_card(metrics, counts, **declared)


def test_it_shows_counts_and_figures_by_class() -> None:
    text = card(license="CC0", note="Photos of 2024.")
    for line in (
        "# Toy, int8",
        "- License: CC0",
        "- Data: Photos of 2024.",
        "- Seed: 7",
        "| cat | 1,200 | 40 | 50 |",
        "| dog\\|wolf | 300 | 10 | 20 |",
        "| all | 1,500 | 50 | 70 |",
        "| cat | 50 | 94.0% | 92.2% |",
        "| dog\\|wolf | 20 | 80.0% | 84.2% |",
    ):
        assert line in text.splitlines()
    assert "1.23 MB" in text and "96 x 96 pixels" in text
    assert "Accuracy 90.0%, balanced accuracy 87.5%" in text
    assert "91.4%, with the same prediction for 98.6% of 70 photos: 1 lost, 0 won." in text


def test_it_states_the_calibration_error_and_the_threshold() -> None:
    text = card()
    assert "calibration error of its probabilities 2.3% (15 bins of equal width); 3.5% is" in text
    assert "the temperature 1.31, fitted on 50 validation photos, it was 8.1%." in text
    assert "the root mean square error is 1.2%" in text and "not sure" not in text
    found = ROW["calibration"]
    test = {**found["test"], "answered": 0.913, "accuracy_answered": 0.942}
    sure = {**found, "temperature": None, "coverage": 0.9, "threshold": 0.612, "test": test}
    text = card({**ROW, "calibration": sure})
    assert "temperature" not in text
    assert "A prediction below 61.2% counts as not sure" in text and "answers 90% of" in text
    assert "answers 91.3% of the test photos, and is right for 94.2% of these." in text
    nothing = {**sure, "test": {**test, "answered": 0.0, "accuracy_answered": None}}
    assert "answers 0.0% of the test photos." in card({**ROW, "calibration": nothing})


def test_it_lists_the_limits_that_the_figures_show() -> None:
    text = card()
    assert "Fewer than 30 test photos, so rough figures: dog|wolf." in text
    assert "4.0 times as many training photos" in text
    assert "20.0% of dog|wolf predicted as cat." in text
    assert "License: not declared" in text and "no note was declared" in text


def test_even_classes_without_errors_have_no_such_limits() -> None:
    counts = {"cat": [100, 40, 50], "dog": [90, 40, 40]}
    text = card({**ROW, "confusion": [[50, 0], [0, 40]]}, counts)
    for words in ("Fewer than", "times as many", "most frequent error"):
        assert words not in text


def test_a_class_that_is_never_predicted_is_marked() -> None:
    text = card({**ROW, "confusion": [[50, 0], [20, 0]]})
    assert "| dog\\|wolf | 20 | 0.0% | never predicted |" in text
