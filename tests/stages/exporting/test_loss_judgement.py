"""The judgement of exported files, by counts of 39 test photos of 300."""

from __future__ import annotations

import pytest

from kpipe.errors import ExportError
from kpipe.stages.exporting.loss_judgement import judge_losses


def row(file: str, lost: int, won: int, images: int = 39) -> dict[str, str | int]:
    return {"file": file, "images": images, "lost": lost, "won": won}


def test_a_loss_within_the_tolerance_passes_in_silence() -> None:
    assert judge_losses([row("a.tflite", 0, 0), row("b.tflite", 1, 2)], 0.01) == []


def test_three_of_39_photos_are_too_few_to_tell() -> None:
    (note,) = judge_losses([row("toy.tflite", 0, 0), row("model.tflite", 3, 1)], 0.01)
    assert note == (
        "model.tflite: 3 of 39 test photos lost, 1 won, a loss of 5.1%, above the tolerance of "
        "1.0%; 39 photos are too few to tell it from chance, so the file is accepted"
    )


def test_a_loss_beyond_chance_names_the_files_and_a_tolerance_that_accepts_them() -> None:
    rows = [row("a.tflite", 1, 0), row("b.tflite", 7, 0), row("c.tflite", 9, 1)]
    with pytest.raises(ExportError) as caught:
        judge_losses(rows, 0.01)
    message = str(caught.value)
    assert caught.value.what == "the conversion lost too many test photos: b.tflite, c.tflite"
    assert "b.tflite: 7 of 39 test photos lost, 0 won, a loss of 17.9% (p = 0.0" in message
    assert "a.tflite" not in message
    assert "--set Export.tolerance=0.21" in message
    assert len(judge_losses(rows, 0.21)) == 0


def test_the_named_tolerance_accepts_a_loss_of_a_round_figure() -> None:
    with pytest.raises(ExportError, match=r"Export.tolerance=0\.07;"):
        judge_losses([row("a.tflite", 700, 0, 10_000)], 0.01)
    assert judge_losses([row("a.tflite", 700, 0, 10_000)], 0.07) == []
