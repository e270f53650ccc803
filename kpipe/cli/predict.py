"""The predict command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from kpipe.cli.output import print_text
from kpipe.errors import DataError

__all__ = ["predict"]


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Number of labels per image.",
)
@click.option(
    "--background",
    default="white",
    show_default=True,
    help="Color under transparent pixels; use that of the training.",
)
def predict(model: Path, images: tuple[Path, ...], top: int, background: str) -> None:
    """Classify IMAGES (files or folders) with an exported MODEL.tflite.

    "not sure" marks a prediction below the threshold that Export(coverage=) wrote into the file.
    """
    from kpipe.lite import Classifier
    from kpipe.lite.runtime.peak_memory import peak_memory

    peak_memory(model)  # a damaged file may end the process
    classifier = Classifier(model, background=background)
    errors = []
    paths = list(_image_files(images))
    for path in paths:
        try:
            (result,) = classifier.predict(path)
        except DataError as error:
            errors.append(error.what)
            continue
        ranked = sorted(result.probabilities.items(), key=lambda pair: -pair[1])
        best = "  ".join(f"{label} {probability:.1%}" for label, probability in ranked[:top])
        print_text(f"{path}: {best}" if result.sure else f"{path}: not sure: {best}")
    if errors:
        classified = len(paths) - len(errors)
        raise DataError("\n".join(errors), received=f"{classified} of {len(paths)} classified")


def _image_files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        found = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if not found:
            raise DataError(f"there are no images in {path}", expected="image files in the folder")
        yield from found
