"""The predict command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kpipe.cli.output import print_text
from kpipe.errors import DataError

if TYPE_CHECKING:
    from kpipe.lite import Prediction

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

    "not sure" marks a prediction below the threshold that Export(coverage=) wrote into the file. If
    the file is an ensemble, brackets show the lowest and the highest probability of its members.
    """
    from kpipe.lite import Classifier
    from kpipe.lite.runtime.peak_memory import peak_memory

    peak_memory(model)  # a damaged file may end the process
    classifier = Classifier(model, background=background, members=True)
    errors = []
    paths = list(_image_files(images))
    for path in paths:
        try:
            (result,) = classifier.predict(path)
        except DataError as error:
            errors.append(error.what)
            continue
        best = "  ".join(_describe(label, result) for label in _likeliest(result, top))
        print_text(f"{path}: {best}" if result.sure else f"{path}: not sure: {best}")
    if errors:
        classified = len(paths) - len(errors)
        raise DataError("\n".join(errors), received=f"{classified} of {len(paths)} classified")


def _likeliest(result: Prediction, top: int) -> list[str]:
    return sorted(result.probabilities, key=lambda label: -result.probabilities[label])[:top]


def _describe(label: str, result: Prediction) -> str:
    """Return a label with its probability and, of an ensemble, the range of its members."""
    text = f"{label} {result.probabilities[label]:.1%}"
    spread = [member[label] for member in result.members]
    return f"{text} [{min(spread):.1%} to {max(spread):.1%}]" if spread else text


def _image_files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        found = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if not found:
            raise DataError(f"there are no images in {path}", expected="image files in the folder")
        yield from found
