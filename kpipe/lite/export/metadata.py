"""TFLite metadata: a description of the model inside its file, for mobile libraries.

    file     the model, with a buffer to which the entry "TFLITE_METADATA" of its metadata points;
             appended, an uncompressed zip archive of `labels.txt`
    buffer   a second flatbuffer, file identifier "M001": format of the image, normalization of
             pixels, meaning of the scores, and labels.txt as their names

The tables and the order of their fields follow TFLite's metadata schema, version 1.0.0
(tensorflow/tflite-support, metadata_schema.fbs, Apache-2.0). MediaPipe Tasks needs the metadata;
LiteRT ignores it.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kpipe.errors import ExportError
from kpipe.lite.export.flatbuffer import Table, write_flatbuffer
from kpipe.lite.labels_txt import LABELS_FILE, check_labels, format_labels
from kpipe.lite.runtime.interpreter import LiteModel
from kpipe.lite.runtime.score_threshold import SCORE_THRESHOLDING
from kpipe.lite.tflite_file import parse, serialize
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["add_metadata"]

_ENTRY = b"TFLITE_METADATA"
_MIN_PARSER = "1.0.0"  # the oldest version with every field below

_FIELDS = {
    "ModelMetadata": "name description version subgraph_metadata author license associated_files "
    "min_parser_version",
    "SubGraphMetadata": "name description input_tensor_metadata output_tensor_metadata",
    "TensorMetadata": "name description dimension_names content process_units stats "
    "associated_files",
    "Content": "content_properties_type content_properties range",
    "FeatureProperties": "",
    "ImageProperties": "color_space default_size",
    "ImageSize": "width height",
    "ProcessUnit": "options_type options",
    "NormalizationOptions": "mean std",
    "ScoreThresholdingOptions": "global_score_threshold",
    "Stats": "max min",
    "AssociatedFile": "name description type",
}
_FEATURE, _IMAGE = np.uint8(1), np.uint8(2)  # members of the union ContentProperties
_NORMALIZATION = np.uint8(1)  # members of the union ProcessUnitOptions
_THRESHOLDING = np.uint8(SCORE_THRESHOLDING)
_RGB = np.uint8(1)
_AXIS_LABELS = np.uint8(2)


@names_wrong_kinds
def add_metadata(
    tflite: str | os.PathLike[str] | bytes,
    labels: Sequence[str],
    *,
    name: str = "image classifier",
    description: str = "",
    version: str = "",
    author: str = "",
    license: str = "",
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    score_threshold: float | None = None,
) -> bytes:
    """Return a `.tflite` file with metadata and labels, which replace any that it had.

    Args:
        tflite: an image classifier: its path, or its content as `convert` returns it.
        labels: a name for each output, in order.
        name: name of the model.
        description: what the model does, and what data it was trained on.
        version: version of the model.
        author: author of the model.
        license: license of the model.
        mean: subtracted from each pixel in [0, 255] before the model sees it, one value or one for
            each channel. 0 if the preprocessing is part of the graph, as in files of `convert`.
        std: divisor of the difference, one value or one for each channel.
        score_threshold: probability in [0, 1] below which a prediction counts as not sure:
            `Classifier` marks it, and MediaPipe Tasks leaves out the label. None for no threshold.

    Returns:
        The content of the file, a function of the arguments alone.

    Raises:
        ExportError: the file is not an image classifier, the labels do not match its outputs, or
            the normalization or the threshold is invalid.

    Example:
        >>> from pathlib import Path
        >>> from keras import Input, Sequential, layers
        >>> from kpipe.lite import Classifier, add_metadata, convert
        >>> net = Sequential([Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Softmax()])
        >>> content = add_metadata(convert(net), ["red", "green", "blue"], license="CC0")
        >>> _ = Path("model.tflite").write_bytes(content)
        >>> Classifier("model.tflite").labels
        ['red', 'green', 'blue']
    """
    model = LiteModel(tflite)
    labels = list(labels)
    check_labels(labels, model.classes, model.name)
    normalization = _normalization(mean, std)
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise ExportError(
            "invalid score threshold",
            expected="a probability from 0 to 1, or None",
            received=f"score_threshold={score_threshold!r}",
        )
    graph = _table(
        "SubGraphMetadata",
        input_tensor_metadata=[_image(*model.image_size, *normalization)],
        output_tensor_metadata=[_scores(score_threshold)],
    )
    metadata = _table(
        "ModelMetadata",
        name=name,
        description=description,
        version=version,
        author=author,
        license=license,
        subgraph_metadata=[graph],
        min_parser_version=_MIN_PARSER,
    )
    try:
        buffer = write_flatbuffer(metadata, b"M001")
    except UnicodeEncodeError as error:
        raise ExportError(
            "the metadata cannot be written in UTF-8",
            expected="text without half a pair of surrogates",
            received=repr(error.object),
        ) from error
    return _append_labels(_insert_metadata(model.content, buffer), labels)


def _normalization(mean: Sequence[float], std: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Check the normalization, and return it as float32 arrays (1,) or (3,)."""
    both = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    shaped = all(values.shape in ((1,), (3,)) for values in both)
    if not shaped or not np.isfinite(np.concatenate(both)).all() or not (both[1] > 0).all():
        raise ExportError(
            "invalid normalization of pixels",
            expected="a mean and a std above 0, one number each or one for each of 3 channels",
            received=f"mean={mean}, std={std}",
        )
    return both


def _image(height: int, width: int, mean: np.ndarray, std: np.ndarray) -> Table:
    properties = _table(
        "ImageProperties",
        color_space=_RGB,
        default_size=_table("ImageSize", width=np.uint32(width), height=np.uint32(height)),
    )
    normalization = _table("NormalizationOptions", mean=mean, std=std)
    return _table(
        "TensorMetadata",
        name="image",
        description=f"An upright RGB image of {width} x {height} pixels in [0, 255].",
        content=_table("Content", content_properties_type=_IMAGE, content_properties=properties),
        process_units=[_table("ProcessUnit", options_type=_NORMALIZATION, options=normalization)],
        stats=_table("Stats", max=(255 - mean) / std, min=-mean / std),
    )


def _scores(threshold: float | None) -> Table:
    file = _table(
        "AssociatedFile", name=LABELS_FILE, description="A label a line.", type=_AXIS_LABELS
    )
    units: dict[str, Any] = {}
    if threshold is not None:
        options = _table("ScoreThresholdingOptions", global_score_threshold=np.float32(threshold))
        units["process_units"] = [
            _table("ProcessUnit", options_type=_THRESHOLDING, options=options)
        ]
    return _table(
        "TensorMetadata",
        name="probability",
        description="The probability of each label.",
        content=_table(
            "Content",
            content_properties_type=_FEATURE,
            content_properties=_table("FeatureProperties"),
        ),
        stats=_table("Stats", max=np.ones(1, np.float32), min=np.zeros(1, np.float32)),
        associated_files=[file],
        **units,
    )


def _table(kind: str, **values: Any) -> Table:
    """Return a table of the schema without its empty strings."""
    slots = _FIELDS[kind].split()
    return {
        slots.index(name): value
        for name, value in values.items()
        if not isinstance(value, str) or value
    }


def _insert_metadata(tflite: bytes, metadata: bytes) -> bytes:
    """Return the model with the metadata in a buffer, without an appended zip archive."""
    model = parse(tflite)
    entry = next((entry for entry in model.metadata or [] if entry.name == _ENTRY), None)
    if entry is None:
        entry = schema.MetadataT(name=_ENTRY, buffer=len(model.buffers))
        model.metadata = [*(model.metadata or []), entry]
        model.buffers.append(schema.BufferT())
    model.buffers[entry.buffer].data = np.frombuffer(metadata, np.uint8)
    return serialize(model)


def _append_labels(tflite: bytes, labels: Sequence[str]) -> bytes:
    content = io.BytesIO(tflite)
    with zipfile.ZipFile(content, "a", zipfile.ZIP_STORED) as archive:
        # A fixed date, so that the bytes do not depend on the time of writing.
        member = zipfile.ZipInfo(LABELS_FILE, (1980, 1, 1, 0, 0, 0))
        archive.writestr(member, format_labels(labels))
    return content.getvalue()
