"""The code of a page of the documentation, run from its top to its end as a reader would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpipe.lite import Classifier
from kpipe.prune import count_macs
from kpipe.prune.dependencies import registry
from tests.prune import nets
from tests.prune.masking import randomize

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
# One dataset is handed to fit without a number of steps, as Keras' own guide does.
@pytest.mark.filterwarnings("ignore:.shuffle=True. was passed:UserWarning")
def test_pruning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))
    # So small a network takes as long whole as cut; real times are measured in tests/lite.
    monkeypatch.setattr("kpipe.lite.latency", lambda net, quantize: count_macs(net) / 1e6)
    images = np.random.default_rng(0).uniform(0, 255, (16, 8, 8, 3)).astype("float32")
    photos = tf.data.Dataset.from_tensor_slices((images, np.arange(16) % 4)).batch(8)
    scope: dict[str, Any] = {"model": randomize(nets.lite()), "train": photos, "held": photos}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "pruning.md").read_text(), re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, "pruning.md", "exec"), scope)
    said = capsys.readouterr().out
    assert re.search(r"^4 4\d\.\d% of the MACs", said, re.MULTILINE)
    assert keras.models.load_model("small.keras", compile=False).count_params() > 0
    assert scope["small"].count_params() < scope["model"].count_params()


@pytest.mark.slow
def test_backbones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("keras_hub")
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "backbones.md").read_text(), re.DOTALL):
        exec(compile(block, "backbones.md", "exec"), {})
    shape, handle = capsys.readouterr().out.splitlines()[-2:]
    assert shape == "(None, 16, 16, 16)"
    assert handle.startswith("kaggle://keras/mobilenetv3/keras/")


# Four lines leave a file to be closed with the process.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_four_lines_of_the_readme_read_what_a_run_wrote(
    walk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (DOCS.parent / "README.md").read_text()
    (lines,) = re.findall(r"```python\n(from ai_edge_litert[^`]*)```", readme)
    monkeypatch.chdir(walk.folder)
    pixels = np.load(walk.made_by("Data") / "images.npy")[3]
    exec(compile(lines, "README.md", "exec"), {"pixels": pixels})
    label, probability = capsys.readouterr().out.split()
    expected = Classifier("model.tflite").predict(pixels)[0]
    assert label == expected.label
    assert float(probability) == pytest.approx(expected.probability)
