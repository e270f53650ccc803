"""The rounding error that int8 causes in each operation, measured by TFLite's NumericVerify.

error = operation in int8 - operation in float, both on the same int8 inputs
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from tensorflow.lite.python.convert import mlir_quantize

from kpipe.lite.int8.calibrated_model import CalibratedModel
from kpipe.lite.runtime.interpreter import open_inspectable
from kpipe.lite.stderr import quiet_stderr

__all__ = ["RoundingError", "measure_rounding_errors"]


class RoundingError(NamedTuple):
    """The rounding error of one operation for one image.

    Attributes:
        output: name of the operation's output tensor in the calibrated model.
        values: the output in float.
        error: int8 output minus float output, of the same shape.
    """

    output: str
    values: np.ndarray
    error: np.ndarray


def measure_rounding_errors(
    calibrated: CalibratedModel, images: Iterable[np.ndarray]
) -> Iterator[RoundingError]:
    """Yield the error of each operation for each image, except operations that only pass values on.

    Images are float32 (1, height, width, 3) in [0, 255].
    """
    with quiet_stderr():
        content = bytes(mlir_quantize(calibrated.content, enable_numeric_verify=True))
    interpreter = open_inspectable(content)
    (pixels,) = interpreter.get_input_details()
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    checks = [o for o in interpreter._get_ops_details() if o["op_name"] == "NumericVerify"]
    outputs = _original_names(calibrated)
    for image in images:
        interpreter.set_tensor(pixels["index"], image)
        interpreter.invoke()
        for check in checks:
            exact, error = int(check["inputs"][1]), int(check["outputs"][0])
            if names[exact] in outputs:
                values = interpreter.get_tensor(exact)
                found = interpreter.get_tensor(error).reshape(values.shape)
                yield RoundingError(outputs[names[exact]], values, found)


def _original_names(calibrated: CalibratedModel) -> dict[str, str]:
    """Map names of verified tensors to names in the calibrated model.

    Verified tensors that are missing here belong to operations that only pass values on.
    """
    graph = calibrated.parsed.subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    # The int8 output takes the original name, so the quantizer appends a digit to the float one.
    return {name: name for name in names} | {f"{names[i]}1": names[i] for i in graph.outputs}
