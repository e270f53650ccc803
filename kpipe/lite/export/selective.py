"""Selective quantization: int8 for all layers except the few that lose too much accuracy.

rounding error of each operation         -> candidates                 (NumericVerify)
one candidate in float, the rest in int8 -> gain of each candidate     (Kullback-Leibler)
the best 1, 2, 4, ... in float           -> the first file that loses no more than it may
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kpipe.errors import ExportError
from kpipe.lite.export.calibration_images import prepare_calibration_images
from kpipe.lite.export.checks import check_classifier, check_raw_pixels, converter_errors
from kpipe.lite.export.conversion import calibrate, convert
from kpipe.lite.export.layer_names import find_layer
from kpipe.lite.int8.calibrated_model import CalibratedModel
from kpipe.lite.int8.quantizing import quantize_to_int8, refine
from kpipe.lite.int8.rounding_errors import measure_rounding_errors
from kpipe.lite.runtime.interpreter import LiteModel
from kpipe.paired_loss import PairedLoss
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["QuantizationTrial", "SelectiveQuantization", "quantize_selectively"]

_IMAGES = 32  # for measuring operations
_CANDIDATES = 64  # operations whose gain is measured
_MIN_PROBABILITY = 1 / 512  # half a step of the output


@dataclass(frozen=True)
class QuantizationTrial:
    """One file that `quantize_selectively` tried.

    Attributes:
        in_float: names of the layers in float32, those that gain most first.
        accuracy: accuracy of the file.
        size: size of the file in bytes.
        loss: its loss against the float32 file, on the same images.

    Example:
        >>> from kpipe.lite import QuantizationTrial
        >>> from kpipe.paired_loss import PairedLoss
        >>> loss = PairedLoss(photos=200, lost=5, won=2)
        >>> QuantizationTrial(in_float=("stem",), accuracy=0.9, size=5504, loss=loss).accuracy
        0.9
    """

    in_float: tuple[str, ...]
    accuracy: float
    size: int
    loss: PairedLoss


@dataclass(frozen=True)
class SelectiveQuantization:
    """The file that `quantize_selectively` chose, and all files that it tried.

    Attributes:
        content: content of the `.tflite` file, with uint8 input and output.
        in_float: names of its layers in float32, those that gain most first.
        meets_tolerance: whether its loss is within the tolerance, or no more than chance.
        float_accuracy: accuracy of the float32 file.
        loss: its loss against the float32 file, on the same images.
        trials: every file tried, plain int8 first.

    Example:
        >>> from kpipe.lite import QuantizationTrial, SelectiveQuantization
        >>> from kpipe.paired_loss import PairedLoss
        >>> loss = PairedLoss(photos=200, lost=5, won=2)
        >>> trial = QuantizationTrial((), accuracy=0.9, size=4, loss=loss)
        >>> SelectiveQuantization(b"file", (), True, 0.915, loss, (trial,)).trials[0].accuracy
        0.9
    """

    content: bytes
    in_float: tuple[str, ...]
    meets_tolerance: bool
    float_accuracy: float
    loss: PairedLoss
    trials: tuple[QuantizationTrial, ...]


@names_wrong_kinds
def quantize_selectively(
    model: keras.Model,
    calibration: Iterable[Any],
    correct: Callable[[bytes], Any],
    *,
    tolerance: float = 0.01,
    max_float_ops: int = 32,
) -> SelectiveQuantization:
    """Convert to int8, but keep in float32 the operations that lose too much accuracy.

    A file loses too much if its accuracy is below that of the float32 file by more than the
    tolerance, and if chance does not explain the loss: on the same images, it is correct on
    significantly fewer (McNemar's exact test, one-sided, 5 %).

    Args:
        model: as for `convert`.
        calibration: as for `convert`.
        correct: returns whether a `.tflite` file is correct on each of the same labelled images,
            bool (images,), such as `evaluate(...).correct`. Choices depend on it, so do not use
            images of the test split.
        tolerance: accuracy that the file may lose against the float32 file, in [0, 1].
        max_float_ops: maximum number of operations in float32, each with those that read its
            output.

    Returns:
        The first file that does not lose too much: plain int8, or with 1, 2, 4, ... operations in
        float32. If there is none, the most accurate file, with `meets_tolerance` false.

    Raises:
        ExportError: as for `convert`, or the tolerance or `max_float_ops` is out of range, or
            `correct` does not return booleans of the same images.

    Example:
        >>> import numpy as np
        >>> from keras import Input, Sequential, layers
        >>> from kpipe.lite import evaluate, quantize_selectively
        >>> net = Sequential([Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Softmax()])
        >>> images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3))
        >>> labels = net.predict(images, verbose=0).argmax(axis=1)
        >>> chosen = quantize_selectively(
        ...     net, images, lambda content: evaluate(content, (images, labels)).correct
        ... )
        >>> chosen.meets_tolerance, chosen.in_float
        (True, ())
    """
    if not 0 <= tolerance <= 1 or max_float_ops < 0:
        raise ExportError(
            "invalid tolerance or max_float_ops",
            expected="tolerance from 0 to 1, max_float_ops 0 or more",
            received=f"tolerance={tolerance}, max_float_ops={max_float_ops}",
        )
    float32 = convert(model)
    images = prepare_calibration_images(calibration, check_classifier(model))
    with converter_errors(model):
        calibrated = refine(calibrate(model, images), images)
        plain = quantize_to_int8(calibrated)
    check_raw_pixels(plain)
    expected = _outcomes(correct, float32)

    def trial(content: bytes, layers: Iterable[str]) -> QuantizationTrial:
        found = _outcomes(correct, content, expected.shape)
        loss = PairedLoss.between(expected, found)
        return QuantizationTrial(tuple(layers), float(found.mean()), len(content), loss)

    files = [plain]
    trials = [trial(plain, ())]
    if not trials[0].loss.acceptable(tolerance):
        ranked = _rank_operations(calibrated, float32, plain, images[:_IMAGES])
        for count in _doubling(min(max_float_ops, len(ranked))):
            tensors = list(dict.fromkeys(tensor for group in ranked[:count] for tensor in group))
            files.append(quantize_to_int8(calibrated, tensors))
            layers = dict.fromkeys(find_layer(model, tensor) for tensor in tensors)
            trials.append(trial(files[-1], layers))
            if trials[-1].loss.acceptable(tolerance):
                break
    meets_tolerance = trials[-1].loss.acceptable(tolerance)
    chosen = -1 if meets_tolerance else int(np.argmax([trial.accuracy for trial in trials]))
    return SelectiveQuantization(
        files[chosen],
        trials[chosen].in_float,
        meets_tolerance,
        float(expected.mean()),
        trials[chosen].loss,
        tuple(trials),
    )


def _outcomes(
    correct: Callable[[bytes], Any], content: bytes, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """Return whether a file is correct on each image, bool (images,)."""
    found = np.asarray(correct(content))
    sound = found.dtype == bool and found.ndim == 1 and found.size
    if not sound or shape not in (None, found.shape):
        raise ExportError(
            "`correct` did not return a boolean for each image",
            expected=f"bool {shape or '(images,)'}",
            received=f"{found.dtype} {found.shape}",
            fix="return evaluate(content, data).correct",
        )
    return found


def _doubling(limit: int) -> list[int]:
    """Return 1, 2, 4, ... and the limit."""
    return sorted({min(2**power, limit) for power in range(limit.bit_length() + 1)} - {0})


def _rank_operations(
    calibrated: CalibratedModel, float32: bytes, int8: bytes, images: Sequence[np.ndarray]
) -> list[list[str]]:
    """Return the operations that bring the outputs nearer to float32 if computed in float.

    Each is a list of output tensors: its own and those of its readers. The largest gain is first.
    """
    batch = np.concatenate(images)
    exact = LiteModel(float32).predict(batch)
    before = _divergence(exact, LiteModel(int8).predict(batch))
    readers = _readers(calibrated)
    gains = {}
    # The model's output has no readers.
    inner = [name for name in _rank_by_rounding_error(calibrated, images) if readers.get(name)]
    for name in inner[:_CANDIDATES]:
        file = quantize_to_int8(calibrated, [name, *readers[name]])
        gains[name] = before - _divergence(exact, LiteModel(file).predict(batch))
    best = sorted((name for name in gains if gains[name] > 0), key=lambda name: -gains[name])
    return [[name, *readers[name]] for name in best]


def _readers(calibrated: CalibratedModel) -> dict[str, list[str]]:
    """Map the output of each operation to the outputs of the operations that read it."""
    graph = calibrated.parsed.subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    return {
        names[index]: [names[o.outputs[0]] for o in graph.operators if index in o.inputs]
        for operation in graph.operators
        for index in operation.outputs
    }


def _divergence(exact: np.ndarray, found: np.ndarray) -> float:
    """Return the mean Kullback-Leibler divergence of probabilities from the exact ones."""
    exact, found = np.maximum(exact, _MIN_PROBABILITY), np.maximum(found, _MIN_PROBABILITY)
    return float((exact * np.log(exact / found)).sum(axis=1).mean())


def _rank_by_rounding_error(calibrated: CalibratedModel, images: Iterable[np.ndarray]) -> list[str]:
    """Return the operations' outputs, the one with the largest error over its variance first."""
    noise: dict[str, float] = defaultdict(float)
    for output, values, error in measure_rounding_errors(calibrated, images):
        noise[output] += float(np.mean(error**2) / (np.var(values) + 1e-12))
    return sorted(noise, key=lambda output: -noise[output])
