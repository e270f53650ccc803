"""Tables of a flatbuffer as plain data, and their bytes.

    Table           {slot: value}, slots counted as in the schema; what is missing has its default
    value           a NumPy scalar    a number
                    an array          a vector of numbers
                    str               a string
                    list              a vector of strings or of tables
                    Table             a table

The format is that of https://flatbuffers.dev; a union takes two slots, its type and its table.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types

__all__ = ["Table", "write"]

Table = dict[int, Any]

_FLAGS = {np.uint8: number_types.Uint8Flags, np.uint32: number_types.Uint32Flags}


def write(root: Table, identifier: bytes) -> bytes:
    """The bytes of a flatbuffer.

    Args:
        root: its root table.
        identifier: four bytes that tell the schema.
    """
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, root), file_identifier=identifier)
    return bytes(builder.Output())


def _write(builder: flatbuffers.Builder, value: Any) -> int:
    """Writes what is not a number; returns where it stands."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, list):
        parts = [_write(builder, part) for part in value]
        builder.StartVector(4, len(parts), 4)
        for place in reversed(parts):
            builder.PrependUOffsetTRelative(place)
        return builder.EndVector()
    # Inner parts first: nothing can be written while a table is open.
    inner = {slot: part for slot, part in value.items() if not isinstance(part, np.generic)}
    places = {slot: _write(builder, part) for slot, part in inner.items()}
    builder.StartObject(max(value, default=-1) + 1)
    for slot, part in value.items():
        if slot in places:
            builder.PrependUOffsetTRelativeSlot(slot, places[slot], 0)
        else:
            builder.PrependSlot(_FLAGS[type(part)], slot, part.item(), 0)
    return builder.EndObject()
