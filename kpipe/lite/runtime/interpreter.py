"""A `.tflite` image classifier, run by LiteRT.

uint8 file:   q = round(pixel / scale) + zero_point, and back for the output
float file:   pixels go in as they are
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from kpipe.errors import ExportError
from kpipe.lite.stderr import quiet_stderr

__all__ = ["LiteModel", "inspectable"]

_THREADS = 512  # with ten thousands of them LiteRT ends the process


class LiteModel:
    """One file, opened and ready to answer.

    Args:
        source: the path of a `.tflite` file, or its content.
        threads: processor threads that LiteRT may use.

    Attributes:
        name: the file's path, or "the model" for bytes.
        content: the file's bytes.
        image_size: (height, width) of its input.
        classes: how many probabilities it gives.
        input_quantization: (scale, zero point), (0.0, 0) for a float input.

    Raises:
        ExportError: no such file, not a whole `.tflite` file, or not an image classifier.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes, threads: int = 1) -> None:
        if not isinstance(threads, int) or not 1 <= threads <= _THREADS:
            raise ExportError(
                "a model cannot be run by so many threads",
                expected=f"threads, a whole number from 1 to {_THREADS}",
                received=repr(threads),
            )
        if not isinstance(source, str | os.PathLike | bytes | bytearray | memoryview):
            raise ExportError(
                "there is no model to open",
                expected="the path of a .tflite file, or its content",
                received=repr(source)[:200],
            )
        if isinstance(source, bytearray | memoryview):
            source = bytes(source)
        self.name = "the model" if isinstance(source, bytes) else os.fspath(source)
        self.content = source if isinstance(source, bytes) else _read(Path(source))
        if not self.content:
            raise ExportError(f"{self.name} is empty", fix="export the model again")
        try:
            with quiet_stderr():
                self._interpreter = Interpreter(model_content=self.content, num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ExportError(
                f"{self.name} is not a TFLite file that LiteRT can run",
                expected="a whole .tflite file with builtin operations",
                received=f"{len(self.content)} bytes; LiteRT says: {error}",
                fix="export the model again",
            ) from error
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        self._input, self._output = inputs[0], outputs[0]
        shape = tuple(int(size) for size in self._input["shape"])
        result = tuple(int(size) for size in self._output["shape"])
        if (
            (len(inputs), len(outputs)) != (1, 1)
            or (len(shape), shape[0], shape[-1]) != (4, 1, 3)
            or (len(result), result[0]) != (2, 1)
        ):
            raise ExportError(
                f"{self.name} is not an image classifier",
                expected="one input (1, height, width, 3) and one output (1, classes)",
                received=f"{[d['shape'].tolist() for d in inputs]} -> "
                f"{[d['shape'].tolist() for d in outputs]}",
            )
        if -1 in self._input["shape_signature"][1:]:
            raise ExportError(
                f"{self.name} has an input of open size",
                expected="(1, height, width, 3), all fixed",
                received=str(self._input["shape_signature"].tolist()),
                fix="export it with the size of its images",
            )
        self.image_size = shape[1], shape[2]
        self.classes = result[1]
        self.input_quantization: tuple[float, int] = self._input["quantization"]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities of raw pixels.

        Args:
            images: (n, height, width, 3), RGB, uint8 or float in [0, 255], of the model's size.

        Returns:
            Float32 (n, classes).

        Raises:
            ExportError: images of another shape or range.
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
        if not in_range:  # NaN is not, either
            raise ExportError(
                f"images outside the range of pixels for {self.name}",
                expected=expected,
                received=f"values from {images.min()} to {images.max()}",
                fix="give raw pixels; the preprocessing is inside the file",
            )
        rows = [self._answer(image[None]) for image in images]
        return np.concatenate(rows) if rows else np.empty((0, self.classes), np.float32)

    def invoke(self, image: np.ndarray) -> np.ndarray:
        """The file's own output for an input of its own type: what a phone would call.

        Args:
            image: (1, height, width, 3) of `input_dtype`.

        Returns:
            (1, classes) of the file's output type.
        """
        self._interpreter.set_tensor(self._input["index"], image)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """uint8 for an int8 file, float32 for the others."""
        return np.dtype(self._input["dtype"])

    def delegation(self) -> tuple[int, tuple[str, ...]]:
        """(how many pieces of the graph the delegate runs, the operations that it leaves)."""
        nodes = self._interpreter._get_ops_details()
        pieces = [node for node in nodes if node["op_name"] == "DELEGATE"]
        operations = [node for node in nodes if node["op_name"] != "DELEGATE"]
        makers = {int(tensor): node for node in operations for tensor in node["outputs"]}
        inside: set[int] = set()
        for piece in pieces:
            ends = {int(tensor) for tensor in piece["inputs"]}
            waiting = [int(tensor) for tensor in piece["outputs"]]
            while waiting:
                tensor = waiting.pop()
                if tensor in ends or tensor not in makers:
                    continue
                node = makers[tensor]
                if node["index"] not in inside:
                    inside.add(node["index"])
                    waiting.extend(int(given) for given in node["inputs"])
        left = (node["op_name"] for node in operations if node["index"] not in inside)
        return len(pieces), tuple(left)

    def _answer(self, image: np.ndarray) -> np.ndarray:
        scale, zero_point = self.input_quantization
        if not scale:  # not quantized: pixels as they are
            whole = np.rint(image) if self.input_dtype.kind in "iu" else image
            image = whole.astype(self.input_dtype)
        elif image.dtype != self.input_dtype or (scale, zero_point) != (1.0, 0):
            limits = np.iinfo(self.input_dtype)
            steps = np.rint(image / scale) + zero_point
            image = np.clip(steps, limits.min, limits.max).astype(self.input_dtype)
        result = self.invoke(image)
        scale, zero_point = self._output["quantization"]
        if not scale:
            return result.astype(np.float32)
        return (result.astype(np.float32) - zero_point) * np.float32(scale)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExportError(
            f"cannot read the model file {path}: {error.strerror}",
            fix="give the path of an exported .tflite file",
        ) from error


def inspectable(content: bytes) -> Interpreter:
    """An interpreter of which every tensor can be read after it has run, so without delegates."""
    with quiet_stderr(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        interpreter = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    return interpreter
