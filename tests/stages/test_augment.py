from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from kpipe import Pipeline
from kpipe.data import Augmenter, Mixer
from kpipe.data.augmentation.strengths import ALPHAS, STRENGTHS
from kpipe.errors import DataError, PipelineError
from kpipe.stages import Augment, Data, Export, FineTune


def test_the_fields_are_left_for_an_augmenter_and_a_mixer(perform, data_folder: Path) -> None:
    stage = Augment(flip="vertical", crop=0.5, jpeg=60, mix_up=0.2)
    folder, _ = perform(stage, data=data_folder)
    about = json.loads((folder / "augmentation.json").read_text())
    expected = Augmenter(
        "vertical", 0.05, brightness=0.1, contrast=0.1, color=0.1, crop=0.5, jpeg=60
    )
    assert Augmenter(**about["augmenter"]) == expected
    assert Mixer(**about["mixer"]) == Mixer(mix_up=0.2)


@pytest.mark.slow
def test_the_contact_sheet_is_the_same_in_every_run(perform, data_folder, tmp_path) -> None:
    stage = Augment(rotate=0.2, noise=0.1)
    sheets = [
        (perform(stage, into=tmp_path / name, seed=seed, data=data_folder)[0] / "contact_sheet.jpg")
        for name, seed in (("one", 3), ("again", 3), ("other", 4))
    ]
    one, again, other = (sheet.read_bytes() for sheet in sheets)
    assert one == again
    assert one != other
    with Image.open(sheets[0]) as opened:
        # Twelve photos of 32 pixels in cells of 128, and six views of each.
        assert opened.format == "JPEG"
        assert opened.size == (110 + 7 * 132, 18 + 12 * 132)


def test_a_mixed_contact_sheet_has_room_for_shares(perform, data_folder: Path) -> None:
    folder, _ = perform(Augment(cut_mix=1), data=data_folder)
    with Image.open(folder / "contact_sheet.jpg") as opened:
        assert opened.size == (110 + 7 * 132, 18 + 12 * 146)


def test_every_strength_is_a_field_that_means_off_by_default_or_keeps_its_default() -> None:
    fields = Augment().configuration()
    assert set(fields) == {"flip", *STRENGTHS, *ALPHAS}
    kept = {"rotate": 0.05, "brightness": 0.1, "contrast": 0.1, "color": 0.1, "crop": 0.9}
    for name, strength in {**STRENGTHS, **ALPHAS}.items():
        assert fields[name] == kept.get(name, strength.off)


@pytest.mark.parametrize("name", [*STRENGTHS, *ALPHAS])
def test_the_stage_takes_what_the_data_package_takes(name: str) -> None:
    strength = {**STRENGTHS, **ALPHAS}[name]
    kind = Mixer if name in ALPHAS else Augmenter
    inside = [strength.low, strength.high, strength.off, (strength.low + strength.high) / 2]
    outside = [strength.low - 0.01, strength.high + 0.01, float("nan")]
    for value in inside:
        kind(**{name: value})
        assert Augment(**{"color": 0, name: value}).validation_errors() == []
    for value in outside:
        with pytest.raises(DataError, match=f"{name}="):
            kind(**{name: value})
    for value in [*outside, "0.1", True]:
        (problem,) = Augment(**{"color": 0, name: value}).validation_errors()
        assert f"{name}=" in problem


def test_it_is_refused_where_nothing_after_it_augments() -> None:
    with pytest.raises(
        PipelineError, match="Augment is not used by any later stage: move it before"
    ):
        Pipeline("late", [Data("photos"), FineTune("MobileNetV2"), Augment(), Export()])


def test_color_beside_saturation_or_hue_is_refused_by_name() -> None:
    (problem,) = Augment(saturation=0.2, hue=0.1).validation_errors()
    for words in ("color=0.1", "saturation", "hue", "write color=0"):
        assert words in problem
    assert Augment(color=0, saturation=0.2).validation_errors() == []
