"""Selective quantization: int8, but for the few layers that lose too much by it.

errors of each operation on its own   -> the operations that may matter      (verification)
each of these in float, the rest int8 -> how much nearer the answers come    (Kullback-Leibler)
the first 1, 2, 4, ... in float       -> until the accuracy is within the tolerance
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from kpipe.errors import ExportError
from kpipe.lite.export.calibration import calibration_images
from kpipe.lite.export.conversion import (
    calibrated,
    convert,
    fresh_names,
    input_shape,
    refuse_other_than_raw_pixels,
    said_of,
)
from kpipe.lite.int8.quantizing import Ranges, quantized, refined
from kpipe.lite.int8.rounding_errors import rounding_errors
from kpipe.lite.runtime.interpreter import LiteModel
from kpipe.lite.stderr import quiet_stderr

__all__ = ["FloatTradeoff", "Selective", "quantize_selectively"]

_IMAGES = 32  # on which the layers are compared
_CANDIDATES = 64  # operations of which the effect on the answers is measured
_LEAST = 1 / 512  # half a step of the answers
_Place = tuple[keras.Layer, tuple[keras.Model, ...]]  # a layer, and the nested models it is in


@dataclass(frozen=True)
class FloatTradeoff:
    """What a file with some layers in float is like."""

    in_float: tuple[str, ...]
    accuracy: float
    size: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Selective:
    """The file that was chosen, and those that were looked at on the way.

    Attributes:
        content: the `.tflite` file, uint8 in and out.
        in_float: the layers that compute in float32 there, those that cost most first.
        meets_tolerance: whether its accuracy is within the tolerance.
        float_accuracy: of the float32 file.
        trades: every file looked at, plain int8 first.
    """

    content: bytes
    in_float: tuple[str, ...]
    meets_tolerance: bool
    float_accuracy: float
    trades: tuple[FloatTradeoff, ...]


def quantize_selectively(
    model: keras.Model,
    calibration: Iterable[Any],
    accuracy: Callable[[bytes], float],
    *,
    tolerance: float = 0.01,
    max_float_ops: int = 32,
) -> Selective:
    """Convert to int8, and keep in float32 what costs more accuracy than may be lost.

    Args:
        model: as for `convert`.
        calibration: as for `convert`.
        accuracy: of a `.tflite` file on data that choices may be made on, so not the test split.
        tolerance: the accuracy that may be lost against the float32 file.
        max_float_ops: operations, each with those that read its result, in float32 at most.

    Returns:
        The first file within the tolerance, of plain int8 and 1, 2, 4, ... operations in float32;
        where there is none, the most accurate of them, `meets_tolerance` false.

    Raises:
        ExportError: as `convert`, or a tolerance that is no share.
    """
    if not 0 <= tolerance <= 1 or max_float_ops < 0:
        raise ExportError(
            "the tolerance is no share, or most no count",
            expected="tolerance from 0 to 1, most 0 or more",
            received=f"tolerance={tolerance}, most={max_float_ops}",
        )
    float32 = convert(model)
    images = calibration_images(calibration, input_shape(model))
    with said_of(model):
        ranges = refined(calibrated(model, images), images)
        plain = quantized(ranges)
    refuse_other_than_raw_pixels(plain)
    aim = accuracy(float32)
    least = aim - tolerance
    files = [plain]
    trades = [FloatTradeoff((), accuracy(files[0]), len(files[0]))]
    if trades[0].accuracy < least:
        costs = _costliest(ranges, float32, files[0], images[:_IMAGES])
        for count in _doubled(min(max_float_ops, len(costs))):
            tensors = list(dict.fromkeys(tensor for group in costs[:count] for tensor in group))
            files.append(quantized(ranges, tensors))
            layers = dict.fromkeys(_layer(model, tensor) for tensor in tensors)
            trades.append(FloatTradeoff(tuple(layers), accuracy(files[-1]), len(files[-1])))
            if trades[-1].accuracy >= least:
                break
    meets_tolerance = trades[-1].accuracy >= least
    chosen = -1 if meets_tolerance else int(np.argmax([trade.accuracy for trade in trades]))
    return Selective(files[chosen], trades[chosen].in_float, meets_tolerance, aim, tuple(trades))


def _doubled(max_float_ops: int) -> list[int]:
    """1, 2, 4, ... and `max_float_ops`."""
    return sorted(
        {min(2**power, max_float_ops) for power in range(max_float_ops.bit_length() + 1)} - {0}
    )


def _costliest(
    ranges: Ranges, float32: bytes, int8: bytes, images: Sequence[np.ndarray]
) -> list[list[str]]:
    """Operations, each with its readers, that bring the answers nearer if they are in float.

    They are named by the tensors of their results; those that do most come first.
    """
    batch = np.concatenate(images)
    exact = LiteModel(float32).predict(batch)
    before = _distance(exact, LiteModel(int8).predict(batch))
    readers = _readers(ranges.content)
    gains = {}
    # All but the answers, which nothing reads.
    known = [name for name in _noisiest(ranges.content, images) if readers.get(name)]
    for name in known[:_CANDIDATES]:
        found = LiteModel(quantized(ranges, [name, *readers[name]])).predict(batch)
        gains[name] = before - _distance(exact, found)
    best = sorted((name for name in gains if gains[name] > 0), key=lambda name: -gains[name])
    return [[name, *readers[name]] for name in best]


def _readers(ranges: bytes) -> dict[str, list[str]]:
    """Result of an operation -> the results of the operations that read it."""
    with quiet_stderr():
        interpreter = Interpreter(model_content=ranges)
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    operations = [o for o in interpreter._get_ops_details() if o["op_name"] != "DELEGATE"]
    results = {int(index): names[index] for o in operations for index in o["outputs"]}
    return {
        name: [results[int(o["outputs"][0])] for o in operations if index in o["inputs"]]
        for index, name in results.items()
    }


def _distance(exact: np.ndarray, found: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of the answers from the exact ones."""
    exact, found = np.maximum(exact, _LEAST), np.maximum(found, _LEAST)
    return float((exact * np.log(exact / found)).sum(axis=1).mean())


def _noisiest(ranges: bytes, images: Iterable[np.ndarray]) -> list[str]:
    """The operations' tensors, that of the largest error over its spread first."""
    noise: dict[str, float] = defaultdict(float)
    for result, values, error in rounding_errors(ranges, images):
        noise[result] += float(np.mean(error**2) / (np.var(values) + 1e-12))
    return sorted(noise, key=lambda result: -noise[result])


def _layer(model: keras.Model, tensor: str) -> str:
    """The layer behind a tensor such as "net_1/relu_1/Relu6;net_1/conv_1/convolution": conv.

    Of several layers of that name in nested models, the one that is meant: member_2/conv.
    """
    fresh = {id(layer): name for layer, name in fresh_names(model)}
    places = list(_places(model))
    found = []
    for path in tensor.split(";"):
        parts = path.split("/")[1:]
        # TensorFlow counts the scopes of a name that is taken, as those of layers in a model are.
        for words in ([re.sub(r"_\d+$", "", part) for part in parts], parts):
            found += (matches := _named(words, places, fresh))
            if matches:
                break
    if not found:
        return model.layers[-1].name if tensor.startswith("PartitionedCall") else tensor
    kernels = [
        (layer, inside)
        for layer, inside in found
        if not isinstance(layer, keras.Model) and any("kernel" in w.name for w in layer.weights)
    ]
    layer, inside = [*found, *kernels][-1]
    alone = sum(other.name == layer.name for other, _ in places) == 1
    return layer.name if alone else "/".join(one.name for one in (*inside, layer))


def _named(words: list[str], places: list[_Place], fresh: dict[int, str]) -> list[_Place]:
    """The layers of these names, in their order, whose nested models are named, too."""
    return [
        (layer, inside)
        for word in words
        for layer, inside in places
        if fresh[id(layer)] == word and all(fresh[id(one)] in words for one in inside)
    ]


def _places(model: keras.Model, inside: tuple[keras.Model, ...] = ()) -> Iterator[_Place]:
    """Each layer, and the nested models that it is in, the outermost first."""
    for layer in model.layers:
        yield layer, inside
        if isinstance(layer, keras.Model):
            yield from _places(layer, (*inside, layer))
