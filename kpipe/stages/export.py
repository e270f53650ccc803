"""Export: every model as a `.tflite` file, evaluated by LiteRT on the test split.

export folder := model.tflite          the last model, quantized as declared
                 <title>.tflite        every model in float32
                 model.keras, labels.txt, metrics.json, model_card.md
                 a row of metrics.json also holds, of the test photos, "lost" (only the Keras
                 model is right) and "won" (only the file is right)
                 measured.json         {"models": {file: the latency and memory of a `Benchmark`}}
"""

from __future__ import annotations

import json
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.journal import Journal
from kpipe.core.stage import Context, Stage, stage
from kpipe.core.store import MEASURED
from kpipe.stages.shared.field_types import UnitInterval
from kpipe.stages.shared.loss_judgement import judge_losses
from kpipe.stages.shared.model_card import model_card
from kpipe.stages.shared.model_folder import load_model, read_metadata, reset_keras
from kpipe.stages.shared.photo_dataset import PhotoDataset

if TYPE_CHECKING:
    import keras
    import numpy as np

__all__ = ["Export"]

_BATCH = 64
# Fields of `kpipe.lite.Benchmark` that differ from one measurement to the next.
_MEASURED = ("median_ms", "p5_ms", "p95_ms", "ratio", "initialization_ms", "peak_memory")


@stage
class Export(Stage):
    """Write the `.tflite` files, and evaluate each on the test split, unused until then.

    Args:
        quantize: form of the last model's file: "int8" (uint8 pixels in), "mixed" (int8 weights,
            no calibration), "float16", "dynamic", or None for float32. Every model is also written
            in float32.
        tolerance: accuracy that a file may lose against its Keras model on the test split, in
            [0, 1]. A file that loses more, beyond chance, is refused: the run fails, and keeps its
            files in the folder `refused`. Another tolerance judges the same files again. If the
            photos are too few to tell the loss from chance, a note says so. See
            `kpipe.paired_loss`.
        int8_tolerance: accuracy that int8 may lose on the validation split, in [0, 1]. If it loses
            more, beyond chance, the layers that lose most stay in float32.
        calibration: number of training photos, balanced over the classes, that set the ranges of
            int8.
        license: license of the model, for the files' metadata and the model card.
        note: note on the data, for the files' metadata and the model card.

    Example:
        >>> from kpipe.stages import Export
        >>> Export(quantize="mixed", tolerance=0.02, license="CC0").quantize
        'mixed'
    """

    # 2: int8 files with ranges of least error and corrected biases
    # 3: the photos that each file loses and wins
    version: ClassVar = 3
    needs: ClassVar = ("data", "model+", "ensemble?")
    gives: ClassVar = ("export",)
    publishes: ClassVar = (
        "model.keras",
        "*.tflite",
        "labels.txt",
        "metrics.json",
        MEASURED,
        "model_card.md",
    )
    packages: ClassVar = ("keras", "tensorflow", "ai-edge-litert", "flatbuffers")
    judged: ClassVar = ("tolerance",)

    quantize: Literal["int8", "mixed", "float16", "dynamic"] | None = "int8"
    tolerance: UnitInterval = 0.01
    int8_tolerance: UnitInterval = 0.01
    calibration: Annotated[int, Between(1)] = 200
    license: str = ""
    note: str = ""

    def run(self, context: Context) -> None:
        from kpipe.lite.labels_txt import format_labels

        photos = PhotoDataset.read(context)
        labels = format_labels(photos.classes)
        (context.folder / "labels.txt").write_text(labels, encoding="utf-8")
        first, *smaller = context.inputs["model"]
        last = context.newest("model")
        rows = []
        for folder in (first, *context.inputs["ensemble"], *smaller):
            reset_keras(context.seed)
            about = read_metadata(folder)
            model = load_model(folder)
            reference = model.predict(photos.evaluation_dataset("test", _BATCH), verbose=0)
            forms: list[tuple[str | None, str]] = [(None, f"{_slug(about['title'])}.tflite")]
            if folder == last:
                forms = [*(forms if self.quantize else []), (self.quantize, "model.tflite")]
            for quantize, name in forms:
                context.journal.record("note", text=f"{about['title']} -> {name}")
                path = context.folder / name
                content, details = self._convert(model, quantize, photos, context.journal)
                path.write_bytes(self._with_metadata(content, about["title"], photos))
                measured = _measure(path, photos, reference)
                if name != "model.tflite":
                    del measured["differences"]  # float32: only rounding differs
                rows.append({**measured, **_size_of(model, about), **details})
                rows[-1]["name"] = f"{about['title']}, {quantize}" if quantize else about["title"]
        shutil.copyfile(last / "model.keras", context.folder / "model.keras")
        self._write_metrics(context, photos, rows)

    def judge(self, result: Path) -> list[str]:
        metrics = json.loads((result / "metrics.json").read_text(encoding="utf-8"))
        return judge_losses(metrics["models"], self.tolerance)

    def _write_metrics(
        self, context: Context, photos: PhotoDataset, rows: list[dict[str, Any]]
    ) -> None:
        """Write `metrics.json`, `measured.json` and the model card."""
        measured = {row["file"]: {name: row.pop(name) for name in _MEASURED} for row in rows}
        text = json.dumps({"models": measured}, indent=1)
        (context.folder / MEASURED).write_text(text, "utf-8")
        metrics = {
            "seed": context.seed,
            "image_size": photos.image_size,
            "classes": list(photos.classes),
            "test_images": len(photos.manifest.rows("test")),
            "final": "model.tflite",
            "models": rows,
        }
        card = model_card(metrics, _counts(photos), license=self.license, note=self.note)
        (context.folder / "metrics.json").write_text(json.dumps(metrics, indent=1), "utf-8")
        (context.folder / "model_card.md").write_text(card, "utf-8")

    def _with_metadata(self, content: bytes, title: str, photos: PhotoDataset) -> bytes:
        from kpipe.lite import add_metadata

        # Do not reword: the text is part of every exported file.
        description = f"Tells {len(photos.classes)} classes of photos apart. {self.note}"
        return add_metadata(
            content,
            photos.classes,
            name=title,
            description=description.strip(),
            license=self.license,
        )

    def _convert(
        self, model: keras.Model, quantize: str | None, photos: PhotoDataset, journal: Journal
    ) -> tuple[bytes, dict[str, Any]]:
        """Return the file and, for int8, the trials of layers in float32."""
        from kpipe.lite import convert, evaluate, quantize_selectively

        if quantize != "int8":
            return convert(model, quantize), {}
        chosen = quantize_selectively(
            model,
            _calibration(photos, self.calibration),
            lambda content: evaluate(content, _batches(photos, "validation")).correct,
            tolerance=self.int8_tolerance,
        )
        if chosen.in_float:
            text = f"model.tflite keeps in float32: {', '.join(chosen.in_float)}"
            journal.record("note", text=text)
        if chosen.loss.verdict(self.int8_tolerance) != "within":
            lost = chosen.loss.describe("validation photos")
            why = "no more than chance" if chosen.meets_tolerance else "the best of all files tried"
            text = f"model.tflite: {lost}, above int8_tolerance={self.int8_tolerance}; {why}"
            journal.record("note", text=text)
        return chosen.content, {
            "in_float": list(chosen.in_float),
            "validation_float32": chosen.float_accuracy,
            "trades": [asdict(trial) for trial in chosen.trials],
        }


def _counts(photos: PhotoDataset) -> dict[str, list[int]]:
    """Map each class to its number of photos in train, validation, and test."""
    splits = [photos.manifest.labels(split) for split in ("train", "validation", "test")]
    return {
        name: [int((labels == n).sum()) for labels in splits]
        for n, name in enumerate(photos.classes)
    }


def _calibration(photos: PhotoDataset, count: int) -> Iterator[np.ndarray]:
    """Yield training photos, drawn evenly over the classes."""
    import numpy as np

    rows, labels = photos.manifest.rows("train"), photos.manifest.labels("train")
    generator = np.random.default_rng(photos.seed)
    shuffled = [generator.permutation(rows[labels == c]) for c in range(len(photos.classes))]
    # The first photo of every class, then the second of every class that has one, and so on.
    order = [photos_of[i] for i in range(len(rows)) for photos_of in shuffled if i < len(photos_of)]
    for row in order[:count]:
        yield photos.images[row]


def _measure(path: Path, photos: PhotoDataset, reference: np.ndarray) -> dict[str, Any]:
    """Measure a file on the test split, against its Keras model."""
    import numpy as np

    from kpipe.lite import benchmark, evaluate
    from kpipe.paired_loss import PairedLoss

    evaluation = evaluate(path, _batches(photos, "test"), reference=reference)
    by_keras = reference.argmax(axis=1) == photos.manifest.labels("test")
    loss = PairedLoss.between(by_keras, evaluation.correct)
    found, timed = evaluation.to_dict(), benchmark(path, threads=1).to_dict()
    rows, table = photos.manifest.rows("test"), photos.manifest.table
    for entry, difference in zip(found["differences"], evaluation.differences, strict=True):
        entry["path"] = str(table["path"].iloc[rows[entry.pop("position")]])
        entry["thumbnail"] = _thumbnail(difference.image)
    return {
        "file": path.name,
        "keras_accuracy": float(np.mean(by_keras)),
        "lost": loss.lost,
        "won": loss.won,
        **found,
        **timed,
    }


def _batches(photos: PhotoDataset, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rows, labels = photos.manifest.rows(split), photos.manifest.labels(split)
    for start in range(0, len(rows), _BATCH):
        yield photos.images[rows[start : start + _BATCH]], labels[start : start + _BATCH]


def _thumbnail(image: np.ndarray) -> str:
    """Return a small JPEG as a data URI."""
    from PIL import Image

    picture, file = Image.fromarray(image), BytesIO()
    picture.thumbnail((96, 96))
    picture.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def _size_of(model: keras.Model, about: dict[str, Any]) -> dict[str, int]:
    from kpipe.prune import count_macs, count_params

    # An ensemble stores the sums of its members, which its graph contains as nested models.
    macs = about.get("macs")
    return {
        "macs": count_macs(model) if macs is None else macs,
        "parameters": count_params(model),
    }


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
