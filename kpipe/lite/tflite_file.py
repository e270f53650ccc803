"""A `.tflite` file as objects of the TFLite schema, and back.

Data appended to the flatbuffer, such as a zip archive of labels, is dropped.
"""

from __future__ import annotations

import copy
import struct
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from kpipe.errors import ExportError

__all__ = ["copy_model", "parse", "serialize"]


def parse(content: bytes) -> Any:
    """Return the file as a `ModelT` of the TFLite schema.

    Raises:
        ExportError: it is damaged.
    """
    try:
        return flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    except (AttributeError, IndexError, TypeError, ValueError, struct.error) as error:
        raise ExportError(
            "the content is not that of a TFLite file",
            received=f"{len(content)} bytes; {type(error).__name__}: {error}",
            fix="export the model again",
        ) from error


def copy_model(model: Any) -> Any:
    """Return a deep copy that shares the buffers of weights with the original."""
    return copy.deepcopy(model, {id(buffer): buffer for buffer in model.buffers})


def serialize(model: Any) -> bytes:
    """Return the content of the file that a `ModelT` describes."""
    model.buffers = [_AlignedBuffer(data=buffer.data) for buffer in model.buffers]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


class _AlignedBuffer(schema.BufferT):
    """A buffer whose data starts at a multiple of 16 bytes, as the schema requires.

    The generated Python code does not align it, but a kernel may load 16 bytes at once.
    """

    def Pack(self, builder: Any) -> Any:
        data = None
        if self.data is not None:
            content = bytes(self.data)
            builder.StartVector(1, len(content), 16)
            builder.head = builder.Head() - len(content)
            builder.Bytes[builder.Head() : builder.Head() + len(content)] = content
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)
