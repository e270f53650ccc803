"""What rounding to int8 costs each operation on its own.

operation in int8 - the same operation in float, on what int8 holds of its inputs = its error
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python.convert import mlir_quantize

from kpipe.lite.chatter import quiet_stderr
from kpipe.lite.rewriting import opened

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
    """The error of each operation for each image.

    Args:
        ranges: a calibrated file.
        images: float32 (1, height, width, 3) in [0, 255].
    """
    with quiet_stderr(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        interpreter = Interpreter(
            model_content=bytes(mlir_quantize(ranges, enable_numeric_verify=True)),
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    known = {tensor.name.decode() for tensor in opened(ranges).subgraphs[0].tensors}
    checks = [o for o in interpreter._get_ops_details() if o["op_name"] == "NumericVerify"]
    for image in images:
        interpreter.set_tensor(entry["index"], image)
        interpreter.invoke()
        for check in checks:
            exact, error = int(check["inputs"][1]), int(check["outputs"][0])
            values = interpreter.get_tensor(exact)
            found = interpreter.get_tensor(error).reshape(values.shape)
            name = names[exact]
            # That of the answers is taken by the int8 file's own, so a digit stands behind it.
            yield RoundingError(name if name in known else name[:-1], values, found)
