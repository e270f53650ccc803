"""Files that LiteRT opens and cannot run, and files damaged at random: errors of the file."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kpipe import cli
from kpipe.errors import ExportError
from kpipe.lite import Classifier, LiteModel, add_metadata, benchmark, evaluate, latency
from kpipe.lite.runtime.peak_memory import peak_memory
from kpipe.lite.tflite_file import parse, serialize
from tests.lite.conftest import photos
from tests.lite.damaging import LABELS, damage

PROJECT = Path(__file__).parents[3]


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


@pytest.mark.parametrize("command", ["predict", "benchmark"])
def test_the_commands_name_it_and_end_with_2(command, broken, tmp_path, monkeypatch, capsys):
    Image.fromarray(photos(1)[0].astype("uint8")).save(tmp_path / "photo.png")
    shown = [str(tmp_path / "photo.png")] if command == "predict" else []
    monkeypatch.setattr(sys, "argv", ["kpipe", command, str(broken), *shown])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    told = capsys.readouterr().err
    assert "broken.tflite is not a TFLite file that LiteRT can" in " ".join(told.split())
    assert "Traceback" not in told


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


def test_a_file_that_ends_the_process_is_named(broken, tmp_path, monkeypatch, capsys):
    """LiteRT aborts for about one in a hundred damaged files."""
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(crashing))
    with pytest.raises(ExportError, match=r"broken\.tflite ended the process .*\n.*\n.*SIGSEGV"):
        benchmark(broken)
    monkeypatch.setattr(sys, "argv", ["kpipe", "predict", str(broken), "photo.jpg"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "ended the process that tried to run it" in capsys.readouterr().err


def test_another_process_reports_what_this_one_would(broken):
    errors = []
    for use in (peak_memory, lambda path: LiteModel(path).predict(photos(1))):
        with pytest.raises(ExportError) as raised:
            use(broken)
        errors.append(str(raised.value))
    assert errors[0] == errors[1]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("int8", 80),
        pytest.param("int8", 500, marks=pytest.mark.slow),
        pytest.param("float", 500, marks=pytest.mark.slow),
    ],
)
def test_damaged_files_end_without_a_traceback(name, count, request, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(add_metadata(request.getfixturevalue(f"{name}_file"), LABELS))
    first, ended = 0, []
    while first < count:
        words = ["-m", "tests.lite.damaging", str(path), str(first), str(count)]
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=600)
        seed = int(done.stdout.split()[-1])
        if done.returncode < 0:  # LiteRT itself ended the process
            ended.append((seed, -done.returncode))
        else:
            assert done.returncode == 0, f"{name}, seed {seed}: {done.stderr[-2000:]}"
        first = seed + 1
    assert len(ended) <= count / 20
    content = path.read_bytes()
    crashed = [seed for seed, number in ended if number != signal.SIGALRM]
    for seed in crashed[:2]:
        path.write_bytes(damage(content, seed))
        with pytest.raises(ExportError, match=r"model\.tflite ended the process"):
            benchmark(path)
