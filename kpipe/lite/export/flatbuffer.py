"""Flatbuffers written from plain Python data.

    Table           {slot: value}, slots counted as in the schema; a missing slot has its default
    value           NumPy scalar      a number
                    NumPy array       a vector of numbers
                    str               a string
                    list              a vector of strings or of tables
                    Table             a table

See https://flatbuffers.dev for the format. A union takes two slots: its type and its table.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types

__all__ = ["Table", "write_flatbuffer"]

Table = dict[int, Any]

_FLAGS = {
    np.uint8: number_types.Uint8Flags,
    np.uint32: number_types.Uint32Flags,
    np.float32: number_types.Float32Flags,
}


def write_flatbuffer(root: Table, identifier: bytes) -> bytes:
    """Return the bytes of a flatbuffer.

    Args:
        root: the root table.
        identifier: file identifier of the schema, four bytes.
    """
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, root), file_identifier=identifier)
    return bytes(builder.Output())


def _write(builder: flatbuffers.Builder, value: Any) -> int:
    """Write a value that is not a number, and return its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, list):
        parts = [_write(builder, part) for part in value]
        builder.StartVector(4, len(parts), 4)
        for offset in reversed(parts):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    # Nested values first: a builder cannot write them while a table is open.
    nested = {slot: part for slot, part in value.items() if not isinstance(part, np.generic)}
    offsets = {slot: _write(builder, part) for slot, part in nested.items()}
    builder.StartObject(max(value, default=-1) + 1)
    for slot, part in value.items():
        if slot in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
        else:
            builder.PrependSlot(_FLAGS[type(part)], slot, part.item(), 0)
    return builder.EndObject()
