"""The metrics of Export against those of its files, run by LiteRT directly."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

import kpipe.lite
from kpipe.core.pipeline import Pipeline
from kpipe.core.runner import plan, run, run_folder
from kpipe.core.stage import Context, Stage, stage
from kpipe.core.store import Store
from kpipe.data import Manifest
from kpipe.ensemble import (
    apply_temperature,
    debiased_calibration_error,
    expected_calibration_error,
    fit_temperature,
)
from kpipe.errors import ExportError
from kpipe.lite import Classifier
from kpipe.lite.runtime.evaluation import Evaluation
from kpipe.report import collect_run
from kpipe.stages import Data, Export
from kpipe.stages.exporting.exported_file import calibration_photos
from kpipe.stages.shared.model_folder import load_model
from tests.stages.conftest import toy_folder
from tests.walking import draw

ROWS = [
    ("mobilenet-0-25.tflite", "MobileNet 0.25", "FineTune"),
    # 11 validation photos prefer one member, see `Ensemble`.
    ("ensemble-of-2-best-member.tflite", "ensemble of 2 (best member)", "Ensemble"),
    ("mobilenet-0-25-pruned.tflite", "MobileNet 0.25, pruned", "FilterPrune"),
    ("mobilenet-0-25-pruned-sparse.tflite", "MobileNet 0.25, pruned, sparse", "MagnitudePrune"),
    ("model.tflite", "MobileNet 0.25, pruned, sparse, int8", "MagnitudePrune"),
]


@pytest.fixture(scope="module")
def test_split(walk) -> tuple[np.ndarray, np.ndarray]:
    folder = walk.made_by("Data")
    manifest = Manifest.load(folder)
    rows = np.flatnonzero(manifest.table["split"] == "test")
    labels = manifest.table["label"].map(manifest.classes.index).to_numpy()[rows]
    return np.load(folder / "images.npy")[rows], labels


def row_of(walk, file: str) -> dict[str, Any]:
    (row,) = (row for row in walk.metrics["models"] if row["file"] == file)
    return row


def probabilities_of(path: Path, images: np.ndarray) -> np.ndarray:
    """Run a file on every photo by LiteRT directly."""
    model = Interpreter(model_path=str(path))
    model.allocate_tensors()
    (pixels,), (scores,) = model.get_input_details(), model.get_output_details()
    rows = []
    for image in images:
        model.set_tensor(pixels["index"], image[None].astype(pixels["dtype"]))
        model.invoke()
        rows.append(model.get_tensor(scores["index"])[0].astype(np.float64))
    scale, zero = scores["quantization"]
    return (np.stack(rows) - zero) * (scale or 1)


def test_there_is_a_row_for_each_model_in_the_order_of_the_pipeline(walk) -> None:
    found = [(row["file"], row["name"]) for row in walk.metrics["models"]]
    assert found == [(file, name) for file, name, _ in ROWS]
    assert walk.metrics["final"] == "model.tflite"


@pytest.mark.parametrize(("file", "name", "stage_name"), ROWS)
def test_the_metrics_are_those_of_the_file(
    walk, test_split, file: str, name: str, stage_name: str
) -> None:
    images, labels = test_split
    row, found = row_of(walk, file), probabilities_of(walk.folder / file, images)
    predicted = found.argmax(axis=1)
    assert row["images"] == walk.metrics["test_images"] == len(labels)
    assert row["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert row["confusion"] == confusion_matrix(labels, predicted, labels=range(3)).tolist()
    trained = load_model(walk.made_by(stage_name))
    # The files have the temperature inside.
    trained = apply_temperature(trained, row["calibration"]["temperature"])
    expected = trained(images.astype("float32")).numpy()
    by_keras = expected.argmax(axis=1)
    assert row["keras_accuracy"] == pytest.approx(accuracy_score(labels, by_keras))
    assert row["agreement"] == pytest.approx(np.mean(predicted == by_keras))
    assert row["lost"] == np.sum((by_keras == labels) & (predicted != labels))
    assert row["won"] == np.sum((by_keras != labels) & (predicted == labels))
    worst = np.abs(found - expected).max()
    assert row["worst_difference"] == pytest.approx(worst, abs=1e-5)
    if file != "model.tflite":
        assert worst < 1e-4


@pytest.mark.parametrize("file", [file for file, _, _ in ROWS])
def test_sizes_and_latencies_are_those_of_the_file(walk, file: str) -> None:
    row, path = row_of(walk, file), walk.folder / file
    assert row["size"] == os.path.getsize(path)
    assert row["gzip_size"] == len(gzip.compress(path.read_bytes(), mtime=0))
    timed = json.loads((walk.folder / "measured.json").read_text())["models"][file]
    assert 0 < timed["p5_ms"] <= timed["median_ms"] <= timed["p95_ms"]
    assert not timed.keys() & row.keys()
    assert row["threads"] == 1


def test_the_photos_farthest_from_keras_are_named_and_shown(walk, test_split) -> None:
    _, labels = test_split
    row = row_of(walk, "model.tflite")
    far = row["differences"][0]
    assert len(row["differences"]) == min(8, len(labels))
    assert far["difference"] == pytest.approx(row["worst_difference"], abs=1e-6)
    paths = Manifest.load(walk.made_by("Data")).table["path"].astype(str)
    assert far["path"] in set(paths)
    assert far["thumbnail"].startswith("data:image/jpeg;base64,")
    assert "differences" not in row_of(walk, "mobilenet-0-25.tflite")


def test_the_single_model_costs_what_its_layers_cost(walk) -> None:
    model = load_model(walk.made_by("FineTune"))
    macs = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            macs += int(np.prod(layer.output.shape[1:])) * int(np.prod(layer.kernel_size))
        elif isinstance(layer, keras.layers.Conv2D):
            macs += int(np.prod(layer.output.shape[1:3])) * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, keras.layers.Dense):
            macs += int(np.prod(layer.kernel.shape))
    row = row_of(walk, "mobilenet-0-25.tflite")
    assert row["macs"] == macs
    assert row["parameters"] == model.count_params()
    alone = row_of(walk, "ensemble-of-2-best-member.tflite")
    assert (alone["macs"], alone["parameters"]) == (macs, model.count_params())


def test_the_final_file_takes_raw_bytes_and_the_others_raw_floats(walk) -> None:
    for file, _, _ in ROWS:
        model = Interpreter(model_path=str(walk.folder / file))
        (pixels,) = model.get_input_details()
        assert pixels["shape"].tolist() == [1, 32, 32, 3]
        if file == "model.tflite":
            assert pixels["dtype"] is np.uint8 and pixels["quantization"] == (1.0, 0)
        else:
            assert pixels["dtype"] is np.float32


def test_the_labels_lie_beside_the_file(walk) -> None:
    assert (walk.folder / "labels.txt").read_text() == "blue\ngreen\nred\n"


@pytest.mark.parametrize("file", [file for file, _, _ in ROWS])
def test_each_file_contains_the_labels(walk, tmp_path: Path, file: str) -> None:
    alone = tmp_path / "alone.tflite"
    alone.write_bytes((walk.folder / file).read_bytes())
    assert Classifier(alone).labels == ["blue", "green", "red"]


def test_the_card_shows_the_counts_and_the_accuracy(walk) -> None:
    card = (walk.folder / "model_card.md").read_text()
    row = row_of(walk, "model.tflite")
    photos = Manifest.load(walk.made_by("Data")).table
    assert f"# {row['name']}\n" in card and f"Accuracy {row['accuracy']:.1%}" in card
    split = photos[photos["label"] == "blue"]["split"].value_counts()
    assert f"| blue | {split['train']} | {split['validation']} | {split['test']} |" in card
    assert "Fewer than 30 test photos" in card


def test_the_final_model_predicts_several_classes(walk) -> None:
    # Otherwise any constant would pass the comparisons above.
    confusion = np.array(row_of(walk, "model.tflite")["confusion"])
    assert (confusion.sum(axis=0) > 0).sum() > 1


# A file that loses too much


@stage
class Toy(Stage):
    """Return a model without training."""

    needs: ClassVar = ("data",)
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)

    def run(self, context: Context) -> None:
        toy_folder(context.folder, seed=2)


def exporting(tmp_path: Path, **fields: Any) -> Pipeline:
    data = Data(draw(tmp_path / "photos"), image_size=32, split=(0.6, 0.2, 0.2))
    return Pipeline("toy", [data, Toy(), Export(**fields)], seed=3)


def losing(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Let `evaluate` count the first photos as wrong, and a Keras model as always right."""
    evaluate = kpipe.lite.evaluate

    def lossy(path: Any, data: Any, *, reference: np.ndarray, **given: Any) -> Evaluation:
        batches = list(data)
        labels = np.concatenate([labels for _, labels in batches])
        reference[:] = np.eye(reference.shape[1])[labels]  # in place: Export reads it afterwards
        found = evaluate(path, batches, reference=reference, **given)
        correct = np.arange(len(labels)) >= share * len(labels)
        return dataclasses.replace(found, correct=correct, accuracy=float(correct.mean()))

    monkeypatch.setattr(kpipe.lite, "evaluate", lossy)


def test_a_lossy_file_is_refused_and_another_tolerance_converts_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, out = exporting(tmp_path, quantize=None), tmp_path / "out"
    with monkeypatch.context() as patch:
        losing(patch, 1.0)
        with pytest.raises(
            ExportError, match=r"lost too many test photos: model\.tflite"
        ) as caught:
            run(pipeline, out)
    message, folder = str(caught.value), run_folder(pipeline, out)
    photos = json.loads((folder / "refused" / "metrics.json").read_text())["test_images"]
    assert f"model.tflite: {photos} of {photos} test photos lost, 0 won" in message
    assert "at most 1.0%" in message and "--set Export.tolerance=1.0" in message
    assert str(folder / "refused") in message
    assert (folder / "refused" / "model.tflite").exists()
    assert not (folder / "model.tflite").exists() and not (folder / "metrics.json").exists()
    assert plan(pipeline, out)[-1].status == "refused"

    shown = collect_run(folder)
    assert shown["stages"][-1]["status"] == "refused"
    assert shown["stages"][-1]["verdicts"] == [message]
    assert shown["metrics"]["models"][-1]["lost"] == photos

    accepted = run(pipeline.with_settings(["Export.tolerance=1.0"]), out)
    assert accepted.made == ()
    same = (folder / "refused" / "model.tflite").read_bytes()
    assert (accepted.folder / "model.tflite").read_bytes() == same


def test_a_loss_that_chance_explains_is_accepted_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing(monkeypatch, 0.1)
    result = run(exporting(tmp_path, quantize=None), tmp_path / "out")
    (note,) = collect_run(result.folder)["stages"][-1]["verdicts"]
    photos = json.loads((result.folder / "metrics.json").read_text())["test_images"]
    assert f"of {photos} test photos lost, 0 won" in note and "too few" in note
    assert (result.folder / "model.tflite").exists()


@pytest.mark.slow
def test_measured_figures_do_not_change_the_digest_of_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests, times = [], []
    for root in (tmp_path / "one", tmp_path / "two"):
        result = run(exporting(tmp_path, quantize=None, tolerance=1.0), root)
        times.append((result.folder / "measured.json").read_text())
        with contextlib.closing(Store(root / ".cache")) as store:
            digests.append({e.about["stage"]: e.digest for e in store.entries()}["Export"])
    assert times[0] != times[1]
    assert digests[0] == digests[1]


def test_layers_kept_in_float_are_logged_and_in_the_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([1.0, 0.0, 1.0])  # on validation: of float32, int8, one operation in float
    asked: list[int] = []
    evaluate = kpipe.lite.evaluate

    def scored(path: Any, data: Any, **settings: Any) -> Any:
        found = evaluate(path, data, **settings)
        if "reference" in settings:  # the test split
            return found
        asked.append(found.images)
        return dataclasses.replace(found, correct=np.full(found.images, bool(next(scores, 1.0))))

    monkeypatch.setattr(kpipe.lite, "evaluate", scored)
    result = run(exporting(tmp_path, tolerance=1.0, calibration=6), tmp_path / "out")
    metrics = json.loads((result.folder / "metrics.json").read_text())
    row = next(row for row in metrics["models"] if row["file"] == "model.tflite")
    assert row["validation_float32"] == 1.0
    assert [trade["accuracy"] for trade in row["trades"]] == [0.0, 1.0]
    assert [trade["loss"]["lost"] for trade in row["trades"]] == [asked[0], 0]
    assert row["in_float"] == row["trades"][1]["in_float"] != []
    assert row["size"] > row["trades"][0]["size"]
    journal = (result.folder / "journal.jsonl").read_text()
    assert f"model.tflite keeps in float32: {', '.join(row['in_float'])}" in journal
    validation = Manifest.load(next((tmp_path / "out").rglob("manifest.csv")).parent)
    # The fourth time, of the chosen file, for its calibration.
    assert asked == [len(validation.rows("validation"))] * 4


# Temperature and threshold


def splits_of(out: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the images and the labels of validation and test."""
    folder = next(out.rglob("manifest.csv")).parent
    manifest, images = Manifest.load(folder), np.load(folder / "images.npy")
    return {
        split: (images[manifest.rows(split)], manifest.labels(split))
        for split in ("validation", "test")
    }


def test_each_file_has_its_temperature_and_its_threshold(tmp_path: Path) -> None:
    out = tmp_path / "out"
    pipeline = exporting(tmp_path, tolerance=1.0, int8_tolerance=1.0, calibration=6, coverage=0.75)
    result = run(pipeline, out)
    splits = splits_of(out)
    toy_folder(tmp_path, seed=2)
    trained = load_model(tmp_path)
    before = {split: trained(images.astype("float32")) for split, (images, _) in splits.items()}
    fit = fit_temperature(np.array(before["validation"]), splits["validation"][1])
    published = keras.models.load_model(result.folder / "model.keras")
    metrics = json.loads((result.folder / "metrics.json").read_text())
    assert len(metrics["models"]) == 2
    for row in metrics["models"]:
        path, found = result.folder / row["file"], row["calibration"]
        assert found["temperature"] == pytest.approx(fit.temperature, rel=1e-5)
        assert Classifier(path).threshold == pytest.approx(found["threshold"])
        for split, (images, labels) in splits.items():
            outputs, part = probabilities_of(path, images), found[split]
            assert part["photos"] == len(labels)
            assert part["ece"] == pytest.approx(
                expected_calibration_error(outputs, labels), abs=1e-6
            )
            assert part["ece_before"] == pytest.approx(
                expected_calibration_error(np.array(before[split]), labels), abs=1e-6
            )
            assert part["debiased"] == pytest.approx(
                debiased_calibration_error(outputs, labels), abs=1e-6
            )
            answered = outputs.max(axis=1) >= found["threshold"]
            assert part["answered"] == np.mean(answered)
            right = outputs[answered].argmax(axis=1) == labels[answered]
            assert part["accuracy_answered"] == (
                pytest.approx(right.mean()) if len(right) else None
            )
            if row["file"] != "model.tflite":
                kept = published(images.astype("float32")).numpy()
                np.testing.assert_allclose(outputs, kept, atol=1e-5)
                np.testing.assert_array_equal(kept.argmax(axis=1), np.argmax(before[split], axis=1))
        assert found["validation"]["answered"] >= 0.75
    card = (result.folder / "model_card.md").read_text()
    assert f"the temperature {fit.temperature:.2f}, fitted on" in card and "not sure" in card
    notes = collect_run(result.folder)["stages"][-1]["notes"]
    assert any(f"temperature {fit.temperature:.2f}; calibration error" in note for note in notes)
    assert any("model.tflite: not sure below" in note for note in notes)


def test_without_a_temperature_the_network_stays_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out"
    pipeline = exporting(tmp_path, quantize=None, tolerance=1.0, temperature=False, coverage=0.999)
    result = run(pipeline, out)
    toy_folder(tmp_path, seed=2)
    same = (result.folder / "model.keras").read_bytes()
    assert same == (tmp_path / "model.keras").read_bytes()
    (row,) = json.loads((result.folder / "metrics.json").read_text())["models"]
    found = row["calibration"]
    assert found["temperature"] is None and found["threshold"] is None
    assert found["test"]["ece"] == pytest.approx(found["test"]["ece_before"], abs=1e-4)
    assert Classifier(result.folder / "model.tflite").threshold is None
    notes = collect_run(result.folder)["stages"][-1]["notes"]
    assert any("model.tflite has no threshold: coverage=0.999" in note for note in notes)


@pytest.mark.parametrize("coverage", [0, 1, 1.5, "all"])
def test_a_coverage_that_answers_all_or_nothing_is_refused_at_once(coverage: Any) -> None:
    (error,) = Export(coverage=coverage).validation_errors()
    assert "coverage" in error and "between 0 and 1, both excluded" in error


# Parts


@pytest.mark.parametrize("count", [6, None, 99])
def test_calibration_photos_are_even_over_the_classes_and_from_training(
    photos, count: int | None
) -> None:
    rows, labels = photos.manifest.rows("train"), photos.manifest.labels("train")
    count = count or len(rows)
    place = {photos.images[row].tobytes(): label for row, label in zip(rows, labels, strict=True)}
    drawn = [image.tobytes() for image in calibration_photos(photos, count)]
    assert len(set(drawn)) == len(drawn) == min(count, len(rows))
    found = np.bincount([place[image] for image in drawn], minlength=3)
    assert found.tolist() == ([2, 2, 2] if count == 6 else np.bincount(labels).tolist())
