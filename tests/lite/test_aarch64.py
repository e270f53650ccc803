"""The same file on a phone's instruction set gives the same answers.

    .ci/aarch64 FOLDER            # as root, on Debian
    KPIPE_AARCH64=FOLDER pytest tests/lite/test_aarch64.py

The processor that is emulated is named: the one of all features that qemu 7.2 offers ("max")
computes other answers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kpipe.lite import add_metadata, convert
from tests.lite.conftest import photos

ROOT = os.environ.get("KPIPE_AARCH64", "")
SCRIPT = Path(__file__).with_name("litert_answers.py")


def answers(command: list[str], content: bytes, folder: Path) -> tuple[str, np.ndarray]:
    """What the processor is, and the answers that it gives."""
    (folder / "model.tflite").write_bytes(content)
    np.save(folder / "images.npy", photos(12, seed=5))
    files = [str(folder / name) for name in ("model.tflite", "images.npy", "answers.npy")]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/site" if ROOT in command else ""}
    done = subprocess.run(
        [*command, str(SCRIPT), *files],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), np.load(folder / "answers.npy").astype("float64")


@pytest.mark.skipif(not ROOT, reason="KPIPE_AARCH64 names no folder made by .ci/aarch64")
@pytest.mark.parametrize("form", [None, "int8", "mixed"])
def test_aarch64_answers_as_this_machine_does(model, form: str | None, tmp_path: Path) -> None:
    calibration = photos(16) if form == "int8" else None
    content = add_metadata(convert(model, form, calibration), ["a", "b", "c"], name="toy")
    emulated = ["qemu-aarch64", "-cpu", "cortex-a76", "-L", ROOT, f"{ROOT}/usr/bin/python3"]
    machine, found = answers(emulated, content, tmp_path)
    assert machine == "aarch64"
    _, expected = answers([sys.executable], content, tmp_path)
    assert len(set(expected.argmax(axis=1))) > 1
    if form == "int8":
        assert np.abs(found - expected).max() <= 1  # of 256 steps
    else:
        np.testing.assert_allclose(found, expected, atol=1e-5 if form is None else 1e-2)
