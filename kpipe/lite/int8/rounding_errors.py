"""What rounding to int8 costs each operation on its own.

operation in int8 - the same operation in float, on what int8 holds of its inputs = its error
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from tensorflow.lite.python.convert import mlir_quantize

from kpipe.lite.runtime.interpreter import inspectable
from kpipe.lite.stderr import quiet_stderr
from kpipe.lite.tflite_file import opened

__all__ = ["RoundingError", "rounding_errors"]


class RoundingError(NamedTuple):
    """Of one operation for one image.

    Attributes:
        result: the name of the tensor that the operation gives, as in the calibrated file.
        values: it in float.
        error: how much larger it is in int8, of the same shape.
    """

    result: str
    values: np.ndarray
    error: np.ndarray


def rounding_errors(ranges: bytes, images: Iterable[np.ndarray]) -> Iterator[RoundingError]:
    """The error of each operation for each image, but of those that only pass values on.

    Args:
        ranges: a calibrated file.
        images: float32 (1, height, width, 3) in [0, 255].
    """
    with quiet_stderr():
        content = bytes(mlir_quantize(ranges, enable_numeric_verify=True))
    interpreter = inspectable(content)
    (entry,) = interpreter.get_input_details()
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    checks = [o for o in interpreter._get_ops_details() if o["op_name"] == "NumericVerify"]
    known = _results(ranges)
    for image in images:
        interpreter.set_tensor(entry["index"], image)
        interpreter.invoke()
        for check in checks:
            exact, error = int(check["inputs"][1]), int(check["outputs"][0])
            if names[exact] in known:
                values = interpreter.get_tensor(exact)
                found = interpreter.get_tensor(error).reshape(values.shape)
                yield RoundingError(known[names[exact]], values, found)


def _results(ranges: bytes) -> dict[str, str]:
    """Name of a tensor among those that are checked -> its name in the calibrated file.

    Others there are the converter's own, of operations that only pass values on.
    """
    graph = opened(ranges).subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    # The answers' name is taken by the int8 file's own, so a digit stands behind it.
    return {name: name for name in names} | {f"{names[i]}1": names[i] for i in graph.outputs}
