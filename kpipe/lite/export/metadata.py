"""What a `.tflite` file says of itself, where mobile libraries look for it.

    file     the model, with a buffer that the entry "TFLITE_METADATA" of its metadata names,
             and behind it a zip archive of `labels.txt`, stored
    buffer   a flatbuffer of its own, file identifier "M001": what the image is, how pixels are
             normalized, what the scores are, and that labels.txt names them

The tables and the order of their fields are those of TFLite's metadata schema, version 1.0.0
(tensorflow/tflite-support, metadata_schema.fbs, Apache-2.0). LiteRT ignores all of it; MediaPipe
Tasks needs it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kpipe.errors import ExportError
from kpipe.lite.export.flatbuffer import Table, write
from kpipe.lite.labels_file import LABELS, check_labels, labels_text
from kpipe.lite.runtime.interpreter import LiteModel
from kpipe.lite.tflite_file import opened, written

__all__ = ["add_metadata"]

_ENTRY = b"TFLITE_METADATA"
_PARSER = "1.0.0"  # the oldest one that knows every field below

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
    "Stats": "max min",
    "AssociatedFile": "name description type",
}
_FEATURE, _IMAGE = np.uint8(1), np.uint8(2)  # of the union ContentProperties
_NORMALIZATION = np.uint8(1)  # of the union ProcessUnitOptions
_RGB = np.uint8(1)
_AXIS_LABELS = np.uint8(2)


def add_metadata(
    tflite: bytes,
    labels: Sequence[str],
    *,
    name: str = "image classifier",
    description: str = "",
    version: str = "",
    author: str = "",
    license: str = "",
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> bytes:
    """The same `.tflite` file with metadata and labels inside; what it had of them is replaced.

    Args:
        tflite: an image classifier, as `convert` gives it.
        labels: a name for each output, in order.
        name: of the model.
        description: what it does, and what data it learned from.
        version: of the model.
        author: who made it.
        license: what applies to it.
        mean: taken from each pixel in [0, 255], for all channels or for each, before the model
            sees it; 0 where the preprocessing is inside the graph, as `convert` leaves it.
        std: what the rest is divided by.

    Returns:
        The content of the file; a function of the arguments alone.

    Raises:
        ExportError: not a `.tflite` image classifier, labels that do not match its outputs, what is
            no text, or a normalization that is none.
    """
    model = LiteModel(tflite)
    _check_texts(
        name=name, description=description, version=version, author=author, license=license
    )
    labels = list(labels)
    check_labels(labels, model.classes, model.name)
    scaling = [np.asarray(values, np.float32) for values in (mean, std)]
    shaped = all(values.shape in ((1,), (3,)) for values in scaling)
    if not shaped or not np.isfinite(np.concatenate(scaling)).all() or not (scaling[1] > 0).all():
        raise ExportError(
            "pixels cannot be normalized like this",
            expected="a mean and a std above 0, one number each or one for each of 3 channels",
            received=f"mean={mean}, std={std}",
        )
    about = _table(
        "ModelMetadata",
        name=name,
        description=description,
        version=version,
        author=author,
        license=license,
        subgraph_metadata=[
            _table(
                "SubGraphMetadata",
                input_tensor_metadata=[_image(*model.image_size, *scaling)],
                output_tensor_metadata=[_scores()],
            )
        ],
        min_parser_version=_PARSER,
    )
    return _with_labels(_with_buffer(tflite, write(about, b"M001")), labels)


def _check_texts(**texts: Any) -> None:
    if wrong := [f"{name}={text!r}" for name, text in texts.items() if not isinstance(text, str)]:
        raise ExportError(
            "what a file says of itself is text",
            expected="str, empty where there is nothing to say",
            received=", ".join(wrong),
        )


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


def _scores() -> Table:
    file = _table("AssociatedFile", name=LABELS, description="A label a line.", type=_AXIS_LABELS)
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
    )


def _table(kind: str, **values: Any) -> Table:
    slots = _FIELDS[kind].split()
    given = {name: value for name, value in values.items() if not isinstance(value, str) or value}
    return {slots.index(name): value for name, value in given.items()}


def _with_buffer(tflite: bytes, metadata: bytes) -> bytes:
    """The model with the metadata in a buffer of its own, without a zip archive behind it."""
    model = opened(tflite)
    own = [entry for entry in model.metadata or [] if entry.name == _ENTRY]
    if not own:
        own = [schema.MetadataT(name=_ENTRY, buffer=len(model.buffers))]
        model.metadata = [*(model.metadata or []), *own]
        model.buffers.append(schema.BufferT())
    model.buffers[own[0].buffer].data = np.frombuffer(metadata, np.uint8)
    return written(model)


def _with_labels(tflite: bytes, labels: Sequence[str]) -> bytes:
    content = io.BytesIO(tflite)
    with zipfile.ZipFile(content, "a", zipfile.ZIP_STORED) as archive:
        # A fixed moment: bytes must not depend on when they are written.
        archive.writestr(zipfile.ZipInfo(LABELS, (1980, 1, 1, 0, 0, 0)), labels_text(labels))
    return content.getvalue()
