from __future__ import annotations

import gzip
import json

import pytest

from kpipe.errors import ExportError
from kpipe.lite import benchmark, latency


def test_percentiles_are_in_order_and_sizes_are_those_of_the_file(float_file):
    found = benchmark(float_file, runs=5)
    assert 0 < found.p5_ms <= found.median_ms <= found.p95_ms
    assert found.initialization_ms > 0
    assert found.size == len(float_file)
    assert found.gzip_size == len(gzip.compress(float_file))
    assert (found.threads, found.runs) == (1, 5)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_latency_takes_keras_models_paths_and_bytes(model, float_file, int8_file, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(float_file)
    for item in (model, path, str(path), int8_file):
        assert latency(item, runs=2) > 0


def test_nothing_to_time_is_refused(float_file):
    with pytest.raises(ExportError, match="runs=0"):
        benchmark(float_file, runs=0)
