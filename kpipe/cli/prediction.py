"""The command that asks an exported model: predict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

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
    help="How many labels for each image.",
)
@click.option(
    "--background",
    default="white",
    show_default=True,
    help="The color under transparent pixels; that of the training.",
)
def predict(model: Path, images: tuple[Path, ...], top: int, background: str) -> None:
    """Classify IMAGES (files or folders) by an exported MODEL.tflite."""
    from kpipe.lite import Classifier

    classifier = Classifier(model, background=background)
    refused = []
    paths = list(_image_files(images))
    for path in paths:
        try:
            (result,) = classifier.predict(path)
        except DataError as error:
            refused.append(error.what)
            continue
        ranked = sorted(result.probabilities.items(), key=lambda pair: -pair[1])
        best = "  ".join(f"{label} {share:.1%}" for label, share in ranked[:top])
        click.echo(f"{path}: {best}")
    if refused:
        classified = len(paths) - len(refused)
        raise DataError("\n".join(refused), received=f"{classified} of {len(paths)} classified")


def _image_files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        found = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if not found:
            raise DataError(f"there are no images in {path}", expected="image files in the folder")
        yield from found
