"""MediaPipe Tasks loads a file with metadata, and returns the same scores as LiteRT.

MediaPipe and TFMOT cannot share an environment, so MediaPipe needs a separate one:

    python -m venv FOLDER && FOLDER/bin/pip install mediapipe
    KPIPE_MEDIAPIPE=FOLDER/bin/python pytest tests/lite/test_mediapipe.py
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from kpipe.lite import LiteModel, add_metadata
from tests.lite.conftest import photos

LABELS = ["cat", "Straßenbahn", "犬"]
PYTHON = os.environ.get("KPIPE_MEDIAPIPE", "")


needs_mediapipe = pytest.mark.skipif(
    not PYTHON, reason="KPIPE_MEDIAPIPE is not set to a Python that has MediaPipe"
)


def scores(content: bytes, images: np.ndarray, folder: Path) -> list[dict[str, float]]:
    """Return label -> score of each image, by MediaPipe."""
    (folder / "toy.tflite").write_bytes(content)
    np.save(folder / "images.npy", images)
    script = Path(__file__).with_name("mediapipe_scores.py")
    command = [PYTHON, script, folder / "toy.tflite", folder / "images.npy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_mediapipe
@pytest.mark.parametrize("form", ["float_file", "int8_file"])
def test_scores_equal_those_of_litert(
    form: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    content = add_metadata(request.getfixturevalue(form), LABELS, name="toy")
    images = photos(4)  # of the model's input size: MediaPipe resizes in another way than training
    rows = scores(content, images, tmp_path)
    assert all(set(row) == set(LABELS) for row in rows)
    found = [[row[label] for label in LABELS] for row in rows]
    expected = LiteModel(content).predict(images.astype("float32"))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@needs_mediapipe
def test_labels_below_the_threshold_of_the_file_are_left_out(
    int8_file: bytes, tmp_path: Path
) -> None:
    images = photos(8)
    expected = LiteModel(int8_file).predict(images)
    threshold = float(np.sort(expected.max(axis=1))[:2].mean())
    content = add_metadata(int8_file, LABELS, score_threshold=threshold)
    labels = [set(row) for row in scores(content, images, tmp_path)]
    assert labels == [{LABELS[n] for n in np.flatnonzero(row >= threshold)} for row in expected]
    assert set() in labels
