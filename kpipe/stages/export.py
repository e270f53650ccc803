"""Export: every model as a `.tflite` file, evaluated by LiteRT on the test split.

export folder := model.tflite          the last model, quantized as declared
                 <title>.tflite        every model in float32
                 model.keras           the last model, with its temperature, as in the files
                 labels.txt, metrics.json, model_card.md
                 a row of metrics.json also holds, of the test photos, "lost" (only the Keras
                 model is right) and "won" (only the file is right)
                 measured.json         {"models": {file: the latency and memory of a `Benchmark`}}
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.journal import Journal
from kpipe.core.stage import Context, Stage, stage
from kpipe.core.store import MEASURED
from kpipe.stages.exporting.export_calibration import CalibratedNetwork, describe_threshold
from kpipe.stages.exporting.exported_file import (
    BATCH,
    calibration_photos,
    labelled_batches,
    measure,
)
from kpipe.stages.exporting.loss_judgement import judge_losses
from kpipe.stages.exporting.model_card import model_card
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.field_types import OpenUnitInterval, UnitInterval
from kpipe.stages.shared.model_folder import (
    load_model,
    read_metadata,
    reset_keras,
    save_keras,
)

if TYPE_CHECKING:
    import keras

__all__ = ["Export"]

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
        temperature: whether to divide the logits of each model by the temperature that fits the
            validation split, so that its probabilities are those of being right. The predicted
            classes stay the same. See `kpipe.ensemble.calibrate`.
        coverage: fraction of the validation photos to answer, above 0 and below 1. Each file gets
            the threshold that so many photos reach; below it, `kpipe predict` and `Classifier` say
            "not sure", and MediaPipe Tasks returns no label. None for no threshold.

    Example:
        >>> from kpipe.stages import Export
        >>> Export(quantize="mixed", tolerance=0.02, license="CC0").quantize
        'mixed'
    """

    # 2: int8 files with ranges of least error and corrected biases
    # 3: the photos that each file loses and wins
    # 4: temperature, and the calibration error of each file
    version: ClassVar = 4
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
    packages: ClassVar = ("keras", "tensorflow", "ai-edge-litert", "flatbuffers", "scipy")
    judged: ClassVar = ("tolerance",)

    quantize: Literal["int8", "mixed", "float16", "dynamic"] | None = "int8"
    tolerance: UnitInterval = 0.01
    int8_tolerance: UnitInterval = 0.01
    calibration: Annotated[int, Between(1)] = 200
    license: str = ""
    note: str = ""
    temperature: bool = True
    coverage: OpenUnitInterval | None = None

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
            network = self._calibrate(load_model(folder), about["title"], photos, context.journal)
            forms: list[tuple[str | None, str]] = [(None, f"{_slug(about['title'])}.tflite")]
            if folder == last:
                forms = [*(forms if self.quantize else []), (self.quantize, "model.tflite")]
                self._publish(network, folder, context.folder)
            for quantize, name in forms:
                context.journal.record("note", text=f"{about['title']} -> {name}")
                path = context.folder / name
                measured = self._write_file(
                    path, quantize, about["title"], network, photos, context.journal
                )
                if name != "model.tflite":
                    del measured["differences"]  # float32: only rounding differs
                rows.append({**measured, **_size_of(network.model, about)})
                rows[-1]["name"] = f"{about['title']}, {quantize}" if quantize else about["title"]
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

    def _calibrate(
        self, model: keras.Model, title: str, photos: PhotoDataset, journal: Journal
    ) -> CalibratedNetwork:
        """Predict the validation and the test split, and fit the temperature on the first."""
        before = {
            split: model.predict(photos.evaluation_dataset(split, BATCH), verbose=0)
            for split in ("validation", "test")
        }
        labels = {split: photos.manifest.labels(split) for split in before}
        network = CalibratedNetwork.fitted(model, labels, before, temperature=self.temperature)
        if network.fit is not None:
            found = network.row({"validation": network.after["validation"]})["validation"]
            text = (
                f"{title}: temperature {network.fit.temperature:.2f}; calibration error on "
                f"{found['photos']:,} validation photos {found['ece_before']:.1%} -> "
                f"{found['ece']:.1%}"
            )
            doubt = network.fit.doubt.replace("images", "photos")
            journal.record("note", text=f"{text}; {doubt}" if doubt else text)
        return network

    def _publish(self, network: CalibratedNetwork, source: Path, target: Path) -> None:
        """Write the Keras model that `model.tflite` was made from."""
        if network.fit is None:
            shutil.copyfile(source / "model.keras", target / "model.keras")
        else:
            save_keras(network.model, target / "model.keras")

    def _write_file(
        self,
        path: Path,
        quantize: str | None,
        title: str,
        network: CalibratedNetwork,
        photos: PhotoDataset,
        journal: Journal,
    ) -> dict[str, Any]:
        """Write a file, and return its row of the metrics."""
        from kpipe.lite import evaluate

        content, details = self._convert(network.model, quantize, photos, journal)
        validation = network.after["validation"]
        if quantize is not None:
            validation = evaluate(content, labelled_batches(photos, "validation")).probabilities
        threshold = network.threshold(validation, self.coverage)
        path.write_bytes(self._with_metadata(content, title, photos, threshold))
        reference = network.after["test"]
        evaluation = evaluate(path, labelled_batches(photos, "test"), reference=reference)
        calibration = network.row(
            {"validation": validation, "test": evaluation.probabilities},
            coverage=self.coverage,
            threshold=threshold,
        )
        if self.coverage is not None:
            journal.record("note", text=describe_threshold(path.name, calibration))
        measured = measure(path, photos, reference, evaluation)
        return {**measured, **details, "calibration": calibration}

    def _with_metadata(
        self, content: bytes, title: str, photos: PhotoDataset, threshold: float | None
    ) -> bytes:
        from kpipe.lite import add_metadata

        # Do not reword: the text is part of every exported file.
        description = f"Tells {len(photos.classes)} classes of photos apart. {self.note}"
        return add_metadata(
            content,
            photos.classes,
            name=title,
            description=description.strip(),
            license=self.license,
            score_threshold=threshold,
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
            calibration_photos(photos, self.calibration),
            lambda content: evaluate(content, labelled_batches(photos, "validation")).correct,
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
