"""A `.tflite` image classifier, run by LiteRT.

uint8 file:   q = round(pixel / scale) + zero_point, and the inverse for the output
float file:   pixels as they are
"""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from kpipe.errors import ExportError
from kpipe.lite.stderr import quiet_stderr
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["LiteModel", "open_inspectable"]

_FAILURES = (ValueError, RuntimeError, MemoryError)
_FIX = "export the model again"
_INTEGERS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64)
_MAX_THREADS = 512  # with ten thousand threads, LiteRT aborts the process


@names_wrong_kinds_of_fields
class LiteModel:
    """An image classifier in a `.tflite` file, loaded and ready to predict.

    Args:
        source: path of a `.tflite` file, or its content.
        threads: number of processor threads that LiteRT may use, 1 to 512.

    Attributes:
        name: path of the file, or "the model" for bytes.
        content: content of the file.
        image_size: (height, width) of the input in pixels.
        classes: number of classes.
        input_quantization: (scale, zero point); (0.0, 0) for a float input.

    Raises:
        ExportError: the file does not exist, is damaged, or is not an image classifier.

    Example:
        >>> import numpy as np
        >>> from keras import Input, Sequential, layers
        >>> from kpipe.lite import LiteModel, convert
        >>> net = Sequential([Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Softmax()])
        >>> file = LiteModel(convert(net))
        >>> file.image_size, file.classes, file.input_dtype
        ((8, 8), 3, dtype('float32'))
        >>> file.predict(np.zeros((2, 8, 8, 3))).shape
        (2, 3)
    """

    def __init__(self, source: str | os.PathLike[str] | bytes, threads: int = 1) -> None:
        if not 1 <= threads <= _MAX_THREADS:
            raise ExportError(
                "invalid number of threads",
                expected=f"1 to {_MAX_THREADS}",
                received=f"threads={threads}",
            )
        if isinstance(source, str | os.PathLike):
            self.name, self.content = os.fspath(source), _read(Path(source))
        else:
            self.name, self.content = "the model", bytes(source)
        if not self.content:
            raise ExportError(f"{self.name} is empty", fix=_FIX)
        try:
            with quiet_stderr():
                self._interpreter = Interpreter(model_content=self.content, num_threads=threads)
                self._interpreter.allocate_tensors()
            self._input, self._output = _classifier_tensors(self._interpreter, self.name)
        except _FAILURES as error:
            raise self._failure(error) from error
        _, height, width, _ = self._input["shape"].tolist()
        self.image_size = height, width
        self.classes = int(self._output["shape"][1])
        quantized = self._input["dtype"] in _INTEGERS
        self.input_quantization: tuple[float, int] = (
            self._input["quantization"] if quantized else (0.0, 0)
        )

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the class probabilities of raw pixels.

        Args:
            images: (n, height, width, 3), RGB, uint8 or float in [0, 255], of the model's size.

        Returns:
            Float32 (n, classes).

        Raises:
            ExportError: the images have another shape or range.
        """
        images = np.asarray(images)
        expected = f"(n, {self.image_size[0]}, {self.image_size[1]}, 3) in [0, 255]"
        if images.ndim != 4 or images.shape[1:] != (*self.image_size, 3):
            raise ExportError(
                f"images of the wrong shape for {self.name}",
                expected=expected,
                received=f"{images.shape}",
                fix="Classifier resizes photos of any size",
            )
        in_range = images.min(initial=0) >= 0 and images.max(initial=0) <= 255
        if not in_range:  # NaN is out of range, too
            raise ExportError(
                f"images outside the range of pixels for {self.name}",
                expected=expected,
                received=f"values from {images.min()} to {images.max()}",
                fix="pass raw pixels; the preprocessing is inside the file",
            )
        rows = [self._predict_one(image[None]) for image in images]
        found = np.concatenate(rows) if rows else np.empty((0, self.classes), np.float32)
        if not np.isfinite(found).all():
            raise ExportError(
                f"{self.name} returns NaN or infinity",
                expected="one probability per class",
                fix=_FIX,
            )
        return found

    def invoke(self, image: np.ndarray) -> np.ndarray:
        """Return the file's own output for an input of its own type, as an app calls it.

        Args:
            image: (1, height, width, 3) of `input_dtype`.

        Returns:
            (1, classes) of the file's output type.

        Raises:
            ExportError: LiteRT cannot run the file on it.
        """
        try:
            self._interpreter.set_tensor(self._input["index"], image)
            self._interpreter.invoke()
            output = self._interpreter.get_tensor(self._output["index"])
        except _FAILURES as error:
            raise self._failure(error) from error
        if output.shape != (1, self.classes):
            raise self._failure(ValueError(f"the output has the shape {output.shape}"))
        return output

    def _failure(self, error: Exception) -> ExportError:
        return ExportError(
            f"{self.name} is not a TFLite file that LiteRT can run",
            expected="a complete .tflite file with builtin operations",
            received=f"{len(self.content)} bytes; LiteRT says: {error}",
            fix=_FIX,
        )

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """The type of the input: uint8 for an int8 file, float32 for the others."""
        return np.dtype(self._input["dtype"])

    def inspect_delegation(self) -> tuple[int, tuple[str, ...]]:
        """Return how the XNNPACK delegate runs the graph.

        Returns:
            (number of partitions that it runs, operations that it leaves to slower kernels).

        Raises:
            ExportError: names in the file are not UTF-8.
        """
        try:
            nodes = self._interpreter._get_ops_details()
        except _FAILURES as error:
            raise self._failure(error) from error
        partitions = [node for node in nodes if node["op_name"] == "DELEGATE"]
        operations = [node for node in nodes if node["op_name"] != "DELEGATE"]
        producers = {int(tensor): node for node in operations for tensor in node["outputs"]}
        delegated: set[int] = set()
        for partition in partitions:
            ends = {int(tensor) for tensor in partition["inputs"]}
            waiting = [int(tensor) for tensor in partition["outputs"]]
            while waiting:
                tensor = waiting.pop()
                if tensor in ends or tensor not in producers:
                    continue
                node = producers[tensor]
                if node["index"] not in delegated:
                    delegated.add(node["index"])
                    waiting.extend(int(tensor) for tensor in node["inputs"])
        left = (node["op_name"] for node in operations if node["index"] not in delegated)
        return len(partitions), tuple(left)

    def _predict_one(self, image: np.ndarray) -> np.ndarray:
        """Quantize an image (1, height, width, 3), run the file, and dequantize its output."""
        scale, zero_point = self.input_quantization
        if not scale:  # not quantized: pixels as they are
            pixels = np.rint(image) if self.input_dtype.kind in "iu" else image
            image = pixels.astype(self.input_dtype)
        elif image.dtype != self.input_dtype or (scale, zero_point) != (1.0, 0):
            limits = np.iinfo(self.input_dtype)
            steps = np.rint(image / scale) + zero_point
            image = np.clip(steps, limits.min, limits.max).astype(self.input_dtype)
        output = self.invoke(image).astype(np.float32)
        scale, zero_point = self._output["quantization"]
        quantized = scale and self._output["dtype"] in _INTEGERS
        return (output - zero_point) * np.float32(scale) if quantized else output


def open_inspectable(content: bytes) -> Interpreter:
    """Open a file without delegates, so that every tensor can be read after it has run."""
    with quiet_stderr(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        interpreter = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    return interpreter


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ExportError(
            f"cannot read the model file {path}: {getattr(error, 'strerror', error)}",
            fix="give the path of an exported .tflite file",
        ) from error


def _classifier_tensors(
    interpreter: Interpreter, name: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return LiteRT's details of the one input and the one output of an image classifier."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    images, scores = ([d["shape"].tolist() for d in details] for details in (inputs, outputs))
    if (
        (len(images), len(scores)) != (1, 1)
        or (len(images[0]), images[0][:1], images[0][-1:]) != (4, [1], [3])
        or (len(scores[0]), scores[0][:1]) != (2, [1])
        or 0 in (*images[0], *scores[0])
    ):
        raise ExportError(
            f"{name} is not an image classifier",
            expected="one input (1, height, width, 3) and one output (1, classes)",
            received=f"{images} -> {scores}",
        )
    for tensor in (*inputs, *outputs):
        kind, (scale, _) = np.dtype(tensor["dtype"]), tensor["quantization"]
        if kind.kind not in "iuf" or not 0 <= scale < math.inf:
            raise ExportError(
                f"{name} has a tensor of an unusable type",
                expected="integers or floats, and a finite scale",
                received=f"{tensor['name']}: {kind}, scale {scale}",
                fix=_FIX,
            )
    signature = inputs[0]["shape_signature"].tolist()
    if -1 in signature[1:]:
        raise ExportError(
            f"{name} has an input of open size",
            expected="(1, height, width, 3), all fixed",
            received=str(signature),
            fix="export it with the size of its images",
        )
    return inputs[0], outputs[0]
