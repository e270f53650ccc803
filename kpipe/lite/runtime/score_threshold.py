"""The score threshold in a file's TFLite metadata, as MediaPipe Tasks reads it.

    metadata -> first subgraph -> first output -> process units -> ScoreThresholdingOptions

The schema calls it "the recommended global threshold below which results are considered
low-confidence and should be filtered out" (tensorflow/tflite-support, metadata_schema.fbs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types

from kpipe.errors import ExportError

__all__ = ["SCORE_THRESHOLDING", "read_score_threshold"]

SCORE_THRESHOLDING = 3  # member of the union ProcessUnitOptions
_MOST = 64  # entries and tables that are looked at; a damaged file may state billions
_DAMAGED = (AttributeError, IndexError, OverflowError, TypeError, ValueError, struct.error)


def read_score_threshold(content: bytes, name: str) -> float | None:
    """Return the probability below which the file counts as not sure, or None if it states none.

    Args:
        content: the file.
        name: name of the file, for the error.

    Raises:
        ExportError: the metadata are damaged, or the threshold is not in [0, 1].
    """
    try:
        found = next(_thresholds(content), None)
    except _DAMAGED as error:
        raise ExportError(
            f"the TFLite metadata of {name} are damaged",
            received=f"{type(error).__name__}: {error}",
            fix="export the model again, or write them again with add_metadata",
        ) from error
    if found is not None and not 0 <= found <= 1:
        raise ExportError(
            f"{name} has an invalid score threshold", expected="0 to 1", received=str(found)
        )
    return found


def _thresholds(content: bytes) -> Iterator[float]:
    model = schema.Model.GetRootAs(content, 0)
    for number in range(min(model.MetadataLength(), _MOST)):
        entry = model.Metadata(number)
        if entry.Name() == b"TFLITE_METADATA":
            buffer = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
            root = flatbuffers.encode.Get(number_types.UOffsetTFlags.packer_type, buffer, 0)
            metadata = flatbuffers.table.Table(buffer, root)
            for graph in _tables(metadata, 3)[:1]:
                for output in _tables(graph, 3)[:1]:
                    yield from _of_units(_tables(output, 4))


def _of_units(units: list[flatbuffers.table.Table]) -> Iterator[float]:
    for unit in units:
        kind = unit.GetSlot(4, 0, number_types.Uint8Flags)
        if kind == SCORE_THRESHOLDING and (place := unit.Offset(6)):
            options = flatbuffers.table.Table(unit.Bytes, unit.Indirect(unit.Pos + place))
            yield float(options.GetSlot(4, 0.0, number_types.Float32Flags))


def _tables(table: flatbuffers.table.Table, slot: int) -> list[flatbuffers.table.Table]:
    """Return the tables of a vector; none if the slot is empty."""
    place = table.Offset(4 + 2 * slot)
    if not place:
        return []
    start, count = table.Vector(place), table.VectorLen(place)
    places = [table.Indirect(start + 4 * number) for number in range(min(count, _MOST))]
    return [flatbuffers.table.Table(table.Bytes, place) for place in places]
