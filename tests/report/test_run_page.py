from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kpipe.errors import StoreError
from kpipe.report import write_report
from kpipe.report.charts import confusion_matrix, learning_curves
from tests.report.conftest import HISTORY, finished, row, started


def write_metrics(folder: Path, classes: list[str], photos: int, *models: dict[str, Any]) -> None:
    metrics = {
        "seed": 3,
        "image_size": 32,
        "classes": classes,
        "test_images": photos,
        "final": "model.tflite",
        "models": models,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture
def page(journal, artifact) -> str:
    """The report of a run whose every text tries to be HTML."""
    data = artifact("data", problems_csv="path,kind,detail\n/<i>.jpg,truncated,<script>1\n")
    once = {"loss": [0.75], "val_loss": [0.5], "phase": [1]}
    trained = [HISTORY, {**HISTORY, "title": "short", "history": once}]
    folder = journal(
        (0, "run_started", {}),
        (1, "stage_started", started("Data")),
        (2, "note", {"stage": "Data", "text": "2 x <u>truncated</u>"}),
        (3, "stage_finished", finished("Data", data)),
        (4, "stage_started", started("FineTune")),
        (9, "stage_finished", finished("FineTune", artifact("model", history_json=trained))),
    )
    write_metrics(
        folder,
        ["<b>bold</b>", "a & b"],
        16,
        row("toy.tflite", "toy <em>", accuracy=0.5),
        row("model.tflite", "toy, int8", accuracy=0.8125),
    )
    (folder / "pipeline.py").write_text('pipeline = "</pre><script>alert(1)</script>"')
    return write_report(folder).read_text()


class Tags(HTMLParser):
    """Every element that is opened, with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def names(self) -> set[str]:
        return {tag for tag, _ in self.found}


def test_a_refused_run_shows_why_and_its_refused_files(journal, artifact) -> None:
    refused = {"stage": "Export", "error": "ExportError", "detail": "9 of <b>39</b> photos lost"}
    folder = journal(
        (0, "run_started", {}),
        (1, "stage_started", started("Export")),
        (2, "stage_finished", finished("Export", artifact("export"))),
        (3, "stage_refused", refused),
    )
    (folder / "refused").mkdir()
    write_metrics(
        folder / "refused", ["a", "b"], 39, row("model.tflite", "toy, int8", lost=9, won=0)
    )
    page = write_report(folder).read_text()
    assert "<b>Export is refused:</b> 9 of &lt;b&gt;39&lt;/b&gt; photos lost" in page
    assert "<td>9</td><td>0</td>" in page
    assert "<td>refused</td>" in page


def test_photos_lost_and_won_that_an_older_run_did_not_count_are_dashes(journal) -> None:
    folder = journal((0, "run_started", {}))
    model = row("model.tflite", "toy")
    del model["lost"], model["won"]
    write_metrics(folder, ["a", "b"], 39, model)
    assert "<td>-</td><td>-</td>" in write_report(folder).read_text()


def test_texts_are_never_markup(page: str) -> None:
    assert not {"script", "em", "i", "u"} & Tags(page).names()
    assert "&lt;b&gt;bold&lt;/b&gt;" in page and "<b>bold" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "2 x &lt;u&gt;truncated" in page and "/&lt;i&gt;.jpg" in page


def test_the_page_is_self_contained(page: str) -> None:
    tags = Tags(page)
    assert not {"link", "script", "iframe", "img", "object"} & tags.names()
    addresses = {
        value
        for _, attributes in tags.found
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "action")
        and not str(value).startswith(("#", "data:"))
    }
    assert addresses == set()
    names = set(re.findall(r'https?://[^"\s<]+', page))
    assert names <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
        "http://purl.org/dc/elements/1.1/",
        "http://creativecommons.org/ns#",
        "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
        "http://purl.org/dc/dcmitype/StillImage",
        "https://matplotlib.org/",
    }
    assert "@import" not in page and "url(http" not in page


def test_the_contact_sheet_is_embedded_in_the_page(journal, artifact, tmp_path: Path) -> None:
    augmentation = artifact("augmentation", augmentation_json={})
    pixels = bytes(range(256))
    (tmp_path / "cache" / "augmentation" / "contact_sheet.jpg").write_bytes(pixels)
    folder = journal(
        (0, "run_started", {}),
        (1, "stage_started", started("Augment")),
        (2, "stage_finished", finished("Augment", augmentation)),
    )
    (image,) = (its for tag, its in Tags(write_report(folder).read_text()).found if tag == "img")
    head, _, encoded = str(image["src"]).partition(",")
    assert head == "data:image/jpeg;base64"
    assert base64.b64decode(encoded) == pixels
    assert image["alt"]


def test_the_table_shows_each_model_and_marks_the_final_one(page: str) -> None:
    rows = re.findall(r"<tr( class=\"final\")?>\s*<td>(.*?)<br>", page)
    assert rows == [("", "toy &lt;em&gt;"), (' class="final"', "toy, int8")]
    for text in ("81.2 %", "73.5 %", "50.0 %", "12.3 M", "1.23 M", "4.56 MB", "3.21 ms"):
        assert text in page


def test_the_trade_and_the_farthest_photos_are_shown(journal) -> None:
    final = row(
        "model.tflite",
        "net, int8",
        in_float=["conv<1>"],
        validation_float32=0.912,
        trades=[
            {"in_float": [], "accuracy": 0.876, "size": 1_000_000},
            {"in_float": ["conv<1>"], "accuracy": 0.909, "size": 1_300_000},
        ],
        differences=[
            {
                "path": "/photos/one/a<b>.jpg",
                "label": 0,
                "answer": 1,
                "reference": 0,
                "difference": 0.437,
                "thumbnail": "data:image/jpeg;base64,AAAA",
            }
        ],
    )
    folder = journal((0, "run_started", {}))
    write_metrics(folder, ["one", "two"], 16, final)
    (folder / "pipeline.py").write_text("")
    text = write_report(str(folder)).read_text()
    assert "91.2 %" in text and "87.6 %" in text and "90.9 %" in text and "conv&lt;1&gt;" in text
    assert ">a&lt;b&gt;.jpg<" in text and 'title="/photos/one/a&lt;b&gt;.jpg"' in text
    assert "0.44 apart" in text
    assert 'src="data:image/jpeg;base64,AAAA"' in text


def test_the_calibration_of_each_model_is_shown_where_it_was_measured(journal) -> None:
    test = {"photos": 16, "ece_before": 0.0812, "ece": 0.0234, "ece_by_chance": 0.0345}
    test["debiased"] = 0.0123
    plain = {
        "temperature": 1.314,
        "low": 1.1,
        "high": 1.6,
        "bins": 15,
        "validation": {"photos": 12},
        "test": test,
        "coverage": None,
        "threshold": None,
    }
    declared = {**plain, "temperature": None, "low": None, "high": None, "coverage": 0.9}
    test = {**test, "answered": 0.913, "accuracy_answered": None}
    sure = {**declared, "threshold": 0.612, "test": test}
    folder = journal((0, "run_started", {}))

    def shown(*calibrations: dict[str, Any]) -> str:
        names = ["toy.tflite", "model.tflite"][-len(calibrations) :]
        rows = [row(n, n, calibration=c) for n, c in zip(names, calibrations, strict=True)]
        write_metrics(folder, ["a", "b"], 16, *rows)
        return write_report(folder).read_text()

    text = shown(plain)
    assert "fitted on the 12 validation photos" in text and "threshold" not in text
    for cell in ("1.31", "1.10 to 1.60", "8.1 %", "2.3 %", "3.5 %", "1.2 %"):
        assert f"<td>{cell}</td>" in text
    text = shown(declared, sure)
    for cell in ("61.2 %", "91.3 %", "-"):
        assert f"<td>{cell}</td>" in text
    write_metrics(folder, ["a", "b"], 16, row("model.tflite", "of an older run"))
    assert "Calibration</h3>" not in write_report(folder).read_text()


def test_a_single_epoch_is_text_not_a_chart(page: str) -> None:
    assert "One epoch: loss 0.750, validation loss 0.500." in page
    assert page.count("<svg") == 2  # a training of several epochs, and where the file errs


def test_the_curves_mark_the_switch_and_the_kept_epoch() -> None:
    picture = learning_curves(HISTORY)
    for words in ("switch", "kept", "validation", "train", "epoch", "accuracy"):
        assert f">{words}</text>" in picture
    plain = learning_curves({**HISTORY, "switched_at": None, "best_epoch": None})
    assert ">switch</text>" not in plain and ">kept</text>" not in plain


def test_a_line_marks_the_start_of_each_phase() -> None:
    def lines(phases: list[float]) -> int:
        history = {"loss": [1.0] * 4, "accuracy": [0.5] * 4, "phase": phases}
        picture = learning_curves({"history": history, "switched_at": None, "best_epoch": None})
        assert (">next phase</text>" in picture) == (len(set(phases)) > 1)
        return picture.count("stroke-dasharray")

    # Two charts, and a line in the legend.
    assert [lines([1, 1, 1, 1]), lines([1, 1, 2, 2]), lines([1, 2, 2, 3])] == [0, 3, 5]


def test_the_switch_is_marked_where_the_optimizer_changed() -> None:
    # Moved by one epoch, the dashed line moves; everything else stays.
    one, other = (learning_curves({**HISTORY, "switched_at": at}) for at in (1, 2))
    dashed = [set(re.findall(r'<path d="([^"]*)"[^>]*dasharray', text)) for text in (one, other)]
    assert dashed[0] and dashed[0] != dashed[1]
    assert len(dashed[0]) == len(dashed[1])


def test_a_training_without_validation_is_drawn() -> None:
    history = {"loss": [1.0, 0.5], "accuracy": [0.2, 0.9]}
    picture = learning_curves({**HISTORY, "history": history, "switched_at": None})
    assert ">validation</text>" not in picture and ">kept</text>" not in picture


def test_the_matrix_shows_counts_and_escapes_names() -> None:
    picture = confusion_matrix([[17, 0], [23, 41]], ["<b>", "$x$ & y"])
    for count in (17, 23, 41):
        assert f">{count}</text>" in picture
    assert ">0</text>" not in picture
    assert "<b>" not in picture and "&lt;b&gt;" in picture


def test_charts_are_reproducible() -> None:
    assert learning_curves(HISTORY) == learning_curves(HISTORY)
    assert confusion_matrix([[1, 2], [3, 4]], ["a", "b"]) == confusion_matrix(
        [[1, 2], [3, 4]], ["a", "b"]
    )


def test_a_run_without_an_export_has_its_page(journal) -> None:
    folder = journal(
        (0, "run_started", {}),
        (1, "stage_started", started("Data")),
        (2, "stage_failed", {"stage": "Data", "error": "DataError", "detail": "no images in <x>"}),
    )
    text = write_report(folder).read_text()
    assert "failed" in text and "no images in &lt;x&gt;" in text
    assert "Models</h2>" not in text
    assert [path.name for path in folder.glob("*.html")] == ["report.html"]


def test_no_page_is_written_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_page_of_a_real_run_shows_its_trainings_and_the_excluded_photo(walk) -> None:
    text = write_report(walk.folder).read_text()
    for words in ("FineTune: MobileNet 0.25", "Ensemble: member 2 of 2", "round 1 of 1"):
        assert words in text
    assert "torn.png" in text and "truncated" in text
    assert "FilterPrune: pruning rounds" in text
    assert text.count("<svg") == 6


@pytest.mark.parametrize("count", [200, 1000])
def test_many_classes_are_tables_of_the_worst_and_no_matrix(journal, count: int) -> None:
    confusion = np.diag(np.full(count, 40))
    confusion[np.arange(count), (np.arange(count) + 1) % count] = 5
    confusion[3, 7], confusion[9, 8], confusion[9, 9] = 17, 15, 10
    folder = journal((0, "run_started", {}))
    write_metrics(
        folder,
        [f"class {number}" for number in range(count)],
        int(confusion.sum()),
        row("model.tflite", "toy", confusion=confusion.tolist()),
    )
    page = write_report(folder).read_text()
    tags = Tags(page)
    assert len(page) < 100_000 and "svg" not in tags.names()
    assert 90 < sum(tag == "tr" for tag, _ in tags.found) < 120
    cells = re.sub(r"<[^>]+>|\s+", " ", page).split()
    text = " ".join(cells)
    assert f"{5 * count + 32} of {45 * count + 2} test photos, in {count + 2} pairs" in text
    first = text.index("class 3 class 7 17 27.4 %")
    assert first < text.index("class 9 class 8 15 50.0 %") < text.index("class 0 class 1 5 11.1 %")
    assert text.index("class 9 class 8 30 33.3 %") < text.index("class 3 class 7 62 64.5 %")


ENSEMBLE = {
    "combine": "average",
    "chosen": "average",
    "photos": 341,
    "members": [
        {"title": "member 1 of 3", "network": "A", "loss": 0.456, "accuracy": 0.8, "weight": 0.5},
        {"title": "member 2 of 3", "network": "B <x>", "failed": "the loss is NaN"},
        {"title": "member 3 of 3", "network": "C", "loss": 0.567, "accuracy": 0.7, "weight": 0.5},
    ],
    "combinations": [{"name": "average", "loss": 0.345, "accuracy": 0.825, "weights": [0.5, 0.5]}],
    "disagreement": [[0, 0.25], [0.25, 0]],
    "oracle": 0.9,
}


@pytest.mark.parametrize("chosen", ["average", "member 1 of 3"])
def test_what_an_ensemble_brings_is_shown(journal, artifact, chosen: str) -> None:
    kept = artifact("ens", ensemble_json={**ENSEMBLE, "chosen": chosen})
    folder = journal(
        (0, "stage_started", started("Ensemble")),
        (9, "stage_finished", {"stage": "Ensemble", "key": "k", "folder": kept}),
    )
    text = write_report(folder).read_text()
    for words in ("341 photos", "0.456", "left out: the loss is NaN", "82.5 %", "90.0 %", "25.0 %"):
        assert words in text
    assert "B <x>" not in text
    assert ("is that member alone" in text) == (chosen != "average")
