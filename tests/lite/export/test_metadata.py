"""Metadata follow the schema, and the network does not change."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types

from kpipe.errors import ExportError
from kpipe.lite import LiteModel, add_metadata
from kpipe.lite.runtime.score_threshold import read_score_threshold
from tests.lite.conftest import photos

LABELS = ["cat", "Straßenbahn", "犬"]


class Reader:
    """Read a table slot by slot with the flatbuffers library."""

    def __init__(self, content: bytes, place: int | None = None) -> None:
        if place is None:
            place = flatbuffers.encode.Get(number_types.UOffsetTFlags.packer_type, content, 0)
        self.table = flatbuffers.table.Table(content, place)

    def at(self, slot: int) -> int:
        found = self.table.Offset(4 + 2 * slot)
        return found and found + self.table.Pos

    def text(self, slot: int) -> str:
        return self.table.String(self.at(slot)).decode() if self.at(slot) else ""

    def number(self, slot: int, flags: Any = number_types.Uint8Flags) -> int:
        return self.table.Get(flags, self.at(slot)) if self.at(slot) else 0

    def inner(self, slot: int) -> Reader:
        return Reader(self.table.Bytes, self.table.Indirect(self.at(slot)))

    def parts(self, slot: int) -> list[Reader]:
        relative = self.at(slot) - self.table.Pos
        start, count = self.table.Vector(relative), self.table.VectorLen(relative)
        places = [self.table.Indirect(start + 4 * n) for n in range(count)]
        return [Reader(self.table.Bytes, place) for place in places]

    def floats(self, slot: int) -> list[float]:
        relative = self.at(slot) - self.table.Pos
        flags = number_types.Float32Flags
        return self.table.GetVectorAsNumpy(flags, relative).tolist()


def metadata_of(content: bytes) -> bytes:
    model = schema.Model.GetRootAs(content, 0)
    entries = [model.Metadata(n) for n in range(model.MetadataLength())]
    (buffer,) = (entry.Buffer() for entry in entries if entry.Name() == b"TFLITE_METADATA")
    return model.Buffers(buffer).DataAsNumpy().tobytes()


@pytest.mark.parametrize("form", ["float_file", "int8_file"])
def test_the_outputs_do_not_change(form: str, request: pytest.FixtureRequest) -> None:
    content = request.getfixturevalue(form)
    described = add_metadata(content, LABELS)
    images = photos(4).astype(np.float32)
    np.testing.assert_array_equal(
        LiteModel(described).predict(images), LiteModel(content).predict(images)
    )


def test_every_field_is_in_its_slot(float_file: bytes) -> None:
    described = add_metadata(
        float_file,
        LABELS,
        name="toy",
        description="Three things; learned from 12 photos.",
        version="3",
        author="who",
        license="CC0",
        mean=[127.0],
        std=[128.0, 64.0, 32.0],
    )
    content = metadata_of(described)
    assert content[4:8] == b"M001"
    root = Reader(content)
    assert [root.text(slot) for slot in (0, 1, 2)] == [
        "toy",
        "Three things; learned from 12 photos.",
        "3",
    ]
    assert [root.text(slot) for slot in (4, 5, 7)] == ["who", "CC0", "1.0.0"]
    (graph,) = root.parts(3)
    (image,), (scores,) = graph.parts(2), graph.parts(3)
    assert image.text(0) == "image"
    assert image.inner(3).number(0) == 2  # ImageProperties
    properties = image.inner(3).inner(1)
    assert properties.number(0) == 1  # RGB
    size = properties.inner(1)
    assert [size.number(slot, number_types.Uint32Flags) for slot in (0, 1)] == [32, 32]
    (unit,) = image.parts(4)
    assert unit.number(0) == 1  # NormalizationOptions
    assert [unit.inner(1).floats(slot) for slot in (0, 1)] == [[127.0], [128.0, 64.0, 32.0]]
    assert image.inner(5).floats(0) == [1.0, 2.0, 4.0]  # the largest that a pixel can become
    assert image.inner(5).floats(1) == [-127 / 128, -127 / 64, -127 / 32]
    assert scores.text(0) == "probability"
    assert scores.inner(3).number(0) == 1  # FeatureProperties
    assert [scores.inner(5).floats(slot) for slot in (0, 1)] == [[1.0], [0.0]]
    (file,) = scores.parts(6)
    assert (file.text(0), file.number(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS


@pytest.mark.parametrize("form", ["float_file", "int8_file"])
@pytest.mark.parametrize("threshold", [0, 0.625, 1.0])
def test_the_score_threshold_is_a_process_unit_of_the_output(
    form: str, threshold: float, request: pytest.FixtureRequest
) -> None:
    plain = request.getfixturevalue(form)
    content = add_metadata(plain, LABELS, score_threshold=threshold)
    (graph,) = Reader(metadata_of(content)).parts(3)
    (scores,) = graph.parts(3)
    (unit,) = scores.parts(4)
    assert unit.number(0) == 3  # ScoreThresholdingOptions
    assert unit.inner(1).number(0, number_types.Float32Flags) == threshold
    assert read_score_threshold(content, "it") == threshold
    images = photos(4).astype(np.float32)
    np.testing.assert_array_equal(
        LiteModel(content).predict(images), LiteModel(plain).predict(images)
    )


def test_a_file_without_a_threshold_states_none(float_file: bytes) -> None:
    (graph,) = Reader(metadata_of(add_metadata(float_file, LABELS))).parts(3)
    assert not graph.parts(3)[0].at(4)
    for content in (float_file, add_metadata(float_file, LABELS)):
        assert read_score_threshold(content, "it") is None


def test_a_damaged_threshold_is_an_error_of_the_file(float_file: bytes) -> None:
    content = add_metadata(float_file, LABELS, score_threshold=0.625)
    for value in (2.0, -1.0, np.nan):
        damaged = content.replace(np.float32(0.625).tobytes(), np.float32(value).tobytes())
        with pytest.raises(ExportError, match="it has an invalid score threshold"):
            read_score_threshold(damaged, "it")
    start = content.index(b"M001") - 4
    with pytest.raises(ExportError, match="the TFLite metadata of it are damaged"):
        read_score_threshold(content[:start] + b"\xff" * 4 + content[start + 4 :], "it")


def test_the_labels_are_in_an_appended_archive(float_file: bytes) -> None:
    described = add_metadata(float_file, LABELS)
    with zipfile.ZipFile(io.BytesIO(described)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode() == "cat\nStraßenbahn\n犬\n"


def test_bytes_depend_on_the_arguments_alone_and_metadata_are_replaced(float_file: bytes) -> None:
    once = add_metadata(float_file, LABELS, name="one")
    assert once == add_metadata(float_file, LABELS, name="one")
    assert once == add_metadata(add_metadata(float_file, ["a", "b", "c"]), LABELS, name="one")
    assert once != add_metadata(float_file, LABELS, name="two")


def test_metadata_of_other_tools_stay(float_file: bytes) -> None:
    def names(content: bytes) -> set[bytes]:
        model = schema.Model.GetRootAs(content, 0)
        return {model.Metadata(n).Name() for n in range(model.MetadataLength())}

    assert names(float_file)  # the converter's own
    assert names(add_metadata(float_file, LABELS)) == names(float_file) | {b"TFLITE_METADATA"}


@pytest.mark.parametrize("form", ["float_file", "int8_file"])
def test_weights_start_at_multiples_of_16_bytes(form: str, request: pytest.FixtureRequest) -> None:
    described = add_metadata(request.getfixturevalue(form), LABELS)
    model = schema.Model.GetRootAs(described, 0)
    buffers = [model.Buffers(n) for n in range(model.BuffersLength())]
    full = [buffer for buffer in buffers if not buffer.DataIsNone()]
    assert len(full) > 5
    assert {b._tab.Vector(b._tab.Offset(4)) % 16 for b in full} == {0}


def test_invalid_arguments_are_refused(float_file: bytes) -> None:
    def message(content: bytes = float_file, labels: Any = LABELS, **options: Any) -> str:
        with pytest.raises(ExportError) as caught:
            add_metadata(content, labels, **options)
        return str(caught.value)

    assert "LiteRT" in message(b"PK not a model")
    assert "LiteRT" in message(float_file[: len(float_file) // 2])
    assert "2 labels" in message(labels=["a", "b"])
    assert "'a' more than once" in message(labels=["a", "a", "b"])
    assert "lines 1 (from 0) are empty" in message(labels=["a", " ", "b"])
    assert "which a line cannot hold" in message(labels=["a\nb", "c", "d"])
    assert "score_threshold=1.5" in message(score_threshold=1.5)
    assert "std=(0.0,)" in message(std=(0.0,))
    assert "invalid normalization" in message(mean=(1.0, 2.0))
