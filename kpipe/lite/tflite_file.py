"""A `.tflite` file taken apart and put together again; what stands behind it is left out."""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

__all__ = ["opened", "probabilities_in_256ths", "written"]

_STEP = 1 / 256


def opened(content: bytes) -> Any:
    """The file as objects of TFLite's schema."""
    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def written(model: Any) -> bytes:
    """The content of the file that such objects describe."""
    model.buffers = [_Buffer(data=buffer.data) for buffer in model.buffers]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


class _Buffer(schema.BufferT):
    """A buffer whose data stand at a multiple of 16 bytes, as the schema asks for.

    Generated Python code does not see to that, and a kernel may load 16 bytes at once.
    """

    def Pack(self, builder: Any) -> Any:
        place = None
        if self.data is not None:
            content = bytes(self.data)
            builder.StartVector(1, len(content), 16)
            builder.head = builder.Head() - len(content)
            builder.Bytes[builder.Head() : builder.Head() + len(content)] = content
            place = builder.EndVector()
        schema.BufferStart(builder)
        if place is not None:
            schema.BufferAddData(builder, place)
        return schema.BufferEnd(builder)


def probabilities_in_256ths(model: Any) -> None:
    """Makes the output of a uint8 file 256 times the probability, whatever range calibration saw.

    Softmax and sigmoid come so; the average of several does not. Its last operation, which turns
    int8 into uint8, then changes the scale as well. Answers that are no probabilities, since they
    were below 0 or above 1, keep the scale that the file says.

    Args:
        model: of `opened`, changed in place.
    """
    (graph,) = model.subgraphs[:1]
    (output,) = graph.outputs
    told = graph.tensors[output].quantization
    last = next(o for o in graph.operators if output in o.outputs)
    code = model.operatorCodes[last.opcodeIndex].builtinCode
    within = told.zeroPoint[0] == 0 and 255 * told.scale[0] <= 1
    if within and code == schema.BuiltinOperator.QUANTIZE:
        told.scale[0] = _STEP
