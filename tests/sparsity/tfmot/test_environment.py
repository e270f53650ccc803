from __future__ import annotations

import os
import subprocess
import sys

import pytest

_AFTERWARDS = """
import os, sys
import tensorflow as tf
import keras, keras_cv
from kpipe.sparsity import cluster_weights, prune_magnitude, train_quantized
assert os.environ.get("TF_USE_LEGACY_KERAS") == before, os.environ.get("TF_USE_LEGACY_KERAS")
assert tf.keras.layers.Dense is keras.layers.Dense
images = tf.zeros((2, 16, 16, 3))
assert keras_cv.layers.GridMask()(images, training=True).shape == (2, 16, 16, 3)
assert keras_cv.layers.ChannelShuffle(3)(images, training=True).shape == (2, 16, 16, 3)
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["import kpipe.sparsity.tfmot.quantization", "import keras_cv"])
def test_importing_sparsity_leaves_the_rest_as_it_was(first):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    script = f"import os\nbefore = os.environ.get('TF_USE_LEGACY_KERAS')\n{first}\n{_AFTERWARDS}"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_naming_the_package_loads_no_tensorflow():
    script = "import sys, kpipe.sparsity; print('tensorflow' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
