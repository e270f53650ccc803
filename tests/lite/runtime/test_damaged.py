"""Files that LiteRT opens and cannot run, and files damaged at random: errors of the file."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from kpipe.errors import ExportError
from kpipe.lite import Classifier, LiteModel, add_metadata, benchmark, evaluate, latency
from kpipe.lite.tflite_file import parse, serialize
from tests.lite.conftest import photos

LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def broken(float_file, tmp_path_factory):
    """A file whose largest weights are missing, which LiteRT notices only when it runs."""
    model = parse(float_file)
    largest = max(model.buffers, key=lambda buffer: 0 if buffer.data is None else len(buffer.data))
    largest.data = None
    path = tmp_path_factory.mktemp("broken") / "broken.tflite"
    path.write_bytes(serialize(model))
    return path


USES = {
    "predict": lambda path: LiteModel(path).predict(photos(1)),
    "classify": lambda path: Classifier(path, LABELS).predict(photos(1)),
    "evaluate": lambda path: evaluate(path, (photos(2), np.zeros(2, int)), workers=1),
    "benchmark": lambda path: benchmark(path, runs=1),
    "latency": lambda path: latency(path, runs=1),
}


@pytest.mark.parametrize("name", USES)
def test_a_file_that_opens_and_does_not_run_is_named(name, broken):
    with pytest.raises(ExportError, match=r"broken\.tflite is not a TFLite file that LiteRT can"):
        USES[name](broken)


def test_probabilities_that_are_nan_are_refused(float_file):
    model = parse(float_file)
    for buffer in model.buffers:
        if buffer.data is not None and len(buffer.data) >= 96:
            buffer.data = np.full(len(buffer.data) // 4, np.nan, np.float32).view(np.uint8)
    with pytest.raises(ExportError, match="NaN"):
        LiteModel(serialize(model)).predict(photos(1))


def test_metadata_are_added_to_a_path(float_file, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(float_file)
    assert add_metadata(path, LABELS) == add_metadata(float_file, LABELS)
    with pytest.raises(ExportError, match=r"absent\.tflite"):
        add_metadata(tmp_path / "absent.tflite", LABELS)


# In another process, which a file may end.
SCRIPT = """
import sys
from pathlib import Path

import numpy as np

from kpipe.errors import KpipeError
from kpipe.lite import Classifier, add_metadata, evaluate

content, (first, last) = Path(sys.argv[1]).read_bytes(), map(int, sys.argv[2:])
path = Path(sys.argv[1]).with_name("damaged.tflite")
for seed in range(first, last):
    random, damaged = np.random.default_rng(seed), bytearray(content)
    start, length = random.integers(len(content)), random.integers(1, 65)
    if seed % 4 == 0:
        for place in random.integers(len(content), size=8):
            damaged[place] = random.integers(256)
    elif seed % 4 == 1:
        del damaged[start:]
    elif seed % 4 == 2:
        damaged[start : start + length] = bytes(len(damaged[start : start + length]))
    else:
        damaged[start : start + length] = random.bytes(length)
    path.write_bytes(damaged)
    print(seed, flush=True)
    image = np.full((32, 32, 3), seed % 256, np.uint8)
    for use in (
        lambda: Classifier(path).predict(image),
        lambda: evaluate(path, (image[None], np.zeros(1, int)), workers=1),
        lambda: add_metadata(path, ["a", "b", "c"]),
    ):
        try:
            use()
        except KpipeError:
            pass
"""


@pytest.mark.parametrize(
    "count", [100, pytest.param(500, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_damaged_files_end_without_a_traceback(count, int8_file, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(add_metadata(int8_file, LABELS))
    for first in range(0, count, 100):
        words = [str(path), str(first), str(first + 100)]
        command = [sys.executable, "-c", SCRIPT, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        seeds = done.stdout.split()
        assert done.returncode == 0, f"file {seeds[-1:]}, {done.returncode}: {done.stderr[-2000:]}"
        assert len(seeds) == 100
