"""What each member of an ensemble returns, read from inside the ensemble's file.

    average_1/member_2_1/probabilities_1/Softmax   the last tensor (1, classes) of member 2

`kpipe.ensemble` names the members so, and the converter keeps the names. LiteRT keeps the tensors
inside a graph only without its fast kernels, so this takes longer than a prediction.

The temperature T of an ensemble, `p ** (1 / T)` at its end, is applied to its members, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from kpipe.errors import ExportError
from kpipe.lite.runtime.interpreter import LiteModel, open_inspectable

__all__ = ["MemberOutputs"]

_MEMBER = re.compile(r"[^/;]+/member_(\d+)(?:_\d+)?/")


class MemberOutputs:
    """The members inside a float32 file.

    Args:
        model: the file.

    Attributes:
        count: number of members; 0 if the file is not an ensemble, or its members return nothing
            that can be read as probabilities.
    """

    def __init__(self, model: LiteModel) -> None:
        self._model = model
        self._tensors: list[int] = []
        self._power = 1.0
        if b"/member_" in model.content and model.input_dtype == np.float32:
            with _errors_of(model):
                self._interpreter = open_inspectable(model.content)
                found = self._find(model.classes)
            if sorted(found) == list(range(1, len(found) + 1)) and len(found) > 1:
                self._tensors = [found[number] for number in sorted(found)]
        self.count = len(self._tensors)

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the probabilities of each member for pixels (height, width, 3).

        Returns:
            Float32 (members, classes).
        """
        with _errors_of(self._model):
            (given,) = self._interpreter.get_input_details()
            self._interpreter.set_tensor(given["index"], image[None].astype(np.float32))
            self._interpreter.invoke()
            rows = [self._interpreter.get_tensor(tensor) for tensor in self._tensors]
        powers = np.concatenate(rows) ** np.float32(self._power)
        return powers / powers.sum(axis=1, keepdims=True)

    def _find(self, classes: int) -> dict[int, int]:
        """Map the number of each member to its last tensor (1, classes)."""
        details = {entry["index"]: entry for entry in self._interpreter.get_tensor_details()}
        found: dict[int, int] = {}
        for operation in self._interpreter._get_ops_details():
            (*_, output) = map(int, operation["outputs"])
            entry = details[output]
            if entry["shape"].tolist() != [1, classes] or entry["dtype"] is not np.float32:
                continue
            if names := _MEMBER.match(entry["name"]):
                found[int(names[1])] = output
                continue
            read = list(map(int, operation["inputs"]))
            if operation["op_name"] == "POW":
                self._power = float(self._interpreter.get_tensor(read[1]).reshape(-1)[0])
            elif operation["op_name"] == "GATHER":  # a member with its classes in another order
                found.update({n: output for n, tensor in found.items() if tensor in read})
        return found


@contextmanager
def _errors_of(model: LiteModel) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, MemoryError) as error:
        raise ExportError(
            f"the members inside {model.name} cannot be read",
            received=f"LiteRT says: {error}",
            fix="export the ensemble again",
        ) from error
