from __future__ import annotations

import gzip
import json

import keras
import numpy as np
import pytest

from kpipe.errors import ExportError
from kpipe.lite import LiteModel, benchmark, compare, convert, latency


def test_percentiles_are_in_order_and_sizes_are_those_of_the_file(float_file):
    found = benchmark(float_file, runs=5)
    assert 0 < found.p5_ms <= found.median_ms <= found.p95_ms
    assert found.initialization_ms > 0
    assert found.size == len(float_file)
    assert found.gzip_size == len(gzip.compress(float_file))
    assert (found.threads, found.runs) == (1, 5)
    assert (found.partitions, found.undelegated_ops) == (1, ())
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_memory_grows_with_the_file(float_file):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Dense(400, activation="relu")(keras.layers.Flatten()(inputs))
    large = convert(keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x)))
    assert len(large) > 4_800_000
    found = benchmark(large, runs=1).peak_memory
    assert found > len(large)
    assert 0 < benchmark(float_file, runs=1).peak_memory < found


def test_operations_that_the_delegate_leaves_are_named():
    inputs = keras.Input((32, 32, 3))
    x = keras.ops.flip(keras.layers.Conv2D(4, 3, name="before")(inputs), axis=1)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="after")(x))
    found = benchmark(convert(keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))), runs=1)
    assert (found.partitions, found.undelegated_ops) == (2, ("REVERSE_V2",))


def test_files_are_timed_in_turns(float_file, int8_file, monkeypatch):
    turns: list[int] = []
    invoke = LiteModel.invoke

    def logged(self: LiteModel, image: np.ndarray) -> np.ndarray:
        turns.append(len(self.content))
        return invoke(self, image)

    monkeypatch.setattr(LiteModel, "invoke", logged)
    first, second = compare([float_file, int8_file], runs=12)
    assert (first.size, second.size) == (len(float_file), len(int8_file))
    timed = turns[20:44]  # after ten runs of each that do not count
    one, other = first.size, second.size
    assert timed == [one] * 5 + [other] * 5 + [one] * 5 + [other] * 5 + [one] * 2 + [other] * 2


def test_latency_takes_keras_models_paths_and_bytes(model, float_file, int8_file, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(float_file)
    for item in (model, path, str(path), int8_file):
        assert latency(item, runs=2) > 0


@pytest.mark.parametrize("runs", [0, -1])
def test_nothing_to_time_is_refused(float_file, runs):
    with pytest.raises(ExportError, match=f"runs={runs!r}"):
        benchmark(float_file, runs=runs)


@pytest.mark.parametrize("sizes", [((8, 8, 3), (8, 8, 3)), ((None, None, 3),)])
def test_the_latency_of_other_models_is_refused(sizes):
    inputs = [keras.Input(size) for size in sizes]
    pooled = [keras.layers.GlobalAveragePooling2D()(x) for x in inputs]
    x = keras.layers.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]
    with pytest.raises(ExportError, match="image classifier"):
        latency(keras.Model(inputs, keras.layers.Dense(2)(x)), quantize="int8")
