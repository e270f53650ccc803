"""A file returns the same outputs on a phone's instruction set.

    .ci/aarch64 FOLDER            # as root, on Debian
    KPIPE_AARCH64=FOLDER pytest tests/lite/test_aarch64.py

The test names the processor to emulate: the one with all features in qemu 7.2 ("max") computes
other outputs.
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
SCRIPT = Path(__file__).with_name("litert_outputs.py")


def outputs(command: list[str], content: bytes, folder: Path) -> tuple[str, np.ndarray]:
    """Return the name of the processor and the outputs that it computes."""
    (folder / "model.tflite").write_bytes(content)
    np.save(folder / "images.npy", photos(12, seed=5))
    files = [str(folder / name) for name in ("model.tflite", "images.npy", "outputs.npy")]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/site" if ROOT in command else ""}
    done = subprocess.run(
        [*command, str(SCRIPT), *files],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), np.load(folder / "outputs.npy").astype("float64")


@pytest.mark.skipif(not ROOT, reason="KPIPE_AARCH64 is not set to a folder made by .ci/aarch64")
@pytest.mark.parametrize("form", [None, "int8", "mixed"])
def test_aarch64_outputs_equal_those_of_this_machine(
    model, form: str | None, tmp_path: Path
) -> None:
    calibration = photos(16) if form == "int8" else None
    content = add_metadata(convert(model, form, calibration), ["a", "b", "c"], name="toy")
    emulated = ["qemu-aarch64", "-cpu", "cortex-a76", "-L", ROOT, f"{ROOT}/usr/bin/python3"]
    machine, found = outputs(emulated, content, tmp_path)
    assert machine == "aarch64"
    _, expected = outputs([sys.executable], content, tmp_path)
    assert len(set(expected.argmax(axis=1))) > 1
    if form == "int8":
        assert np.abs(found - expected).max() <= 1  # of 256 steps
    else:
        np.testing.assert_allclose(found, expected, atol=1e-5 if form is None else 1e-2)
