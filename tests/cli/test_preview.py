from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from kpipe.cli.entry import commands
from kpipe.errors import PipelineError
from tests.walking import draw

DECLARATION = """
from kpipe import Pipeline
from kpipe.stages import Augment, Balance, Data, FineTune

pipeline = Pipeline("looked", [
    Data({source!r}, image_size=32), Balance(), {augment} FineTune("MobileNet", weights=None)
], seed=1)
"""

Preview = Callable[..., Result]


@pytest.fixture
def preview(tmp_path: Path) -> Preview:
    """`preview("Augment(),", words, ...)`: the command on a pipeline with that stage."""
    draw(tmp_path / "photos")

    def run(augment: str, *words: str) -> Result:
        file = tmp_path / "looked.py"
        source = str(tmp_path / "photos")
        file.write_text(DECLARATION.format(source=source, augment=augment))
        return CliRunner().invoke(
            commands, ["preview", str(file), "--root", str(tmp_path / "out"), *words]
        )

    return run


@pytest.mark.slow
def test_the_sheet_needs_no_training_and_its_path_is_printed(preview, tmp_path: Path) -> None:
    result = preview("Augment(),")
    assert result.exit_code == 0, result.output
    output = result.output.rpartition("contact sheet: ")[2].strip()
    (published,) = (tmp_path / "out").glob("looked/*/contact_sheet.jpg")
    assert Path(output) == published
    with Image.open(published) as sheet:
        assert sheet.format == "JPEG"
    assert "FineTune" not in result.output
    first = published.read_bytes()

    again = preview("Augment(),")
    assert "Augment is cached" in again.output
    assert Path(again.output.rpartition("contact sheet: ")[2].strip()) == published

    stronger = preview("Augment(),", "--set", "Augment.rotate=0.4")
    assert "Data is cached" in stronger.output
    other = Path(stronger.output.rpartition("contact sheet: ")[2].strip())
    assert other != published
    assert other.read_bytes() != first == published.read_bytes()


def test_a_pipeline_without_augmentation_is_refused(preview, tmp_path: Path) -> None:
    error = preview("").exception
    assert isinstance(error, PipelineError)
    for words in ("declares no Augment", "Data, Balance, FineTune", "add Augment()"):
        assert words in str(error)
    assert not (tmp_path / "out").exists()
