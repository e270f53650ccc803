"""The predict command."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kpipe.atomic import replacing
from kpipe.cli.output import JSON, print_json, print_text
from kpipe.core.disk_errors import translate_file_errors
from kpipe.errors import DataError
from kpipe.printable import cell

if TYPE_CHECKING:
    from kpipe.lite import Classifier, Prediction

__all__ = ["predict"]


Row = tuple[Path, "Prediction | None", str]


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
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Probability below which a prediction is not sure, in place of the file's.",
)
@click.option(
    "--background",
    default="white",
    show_default=True,
    help="Color under transparent pixels; use that of the training.",
)
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Write a table to this file.")
@JSON
def predict(
    model: Path,
    images: tuple[Path, ...],
    top: int,
    threshold: float | None,
    background: str,
    table: Path | None,
    as_json: bool,
) -> None:
    """Classify IMAGES (files or folders) with an exported MODEL.tflite.

    "not sure" marks a prediction below the threshold: that of --threshold, or the one that
    Export(coverage=) wrote into the file. If the file is an ensemble, brackets show the lowest and
    the highest probability of its members. In the table, an apostrophe stands before cells that a
    spreadsheet would take for a formula.

    Exits with 2 if an image cannot be read; the others are classified all the same.
    """
    from kpipe.lite import Classifier
    from kpipe.lite.runtime.peak_memory import peak_memory

    if table and (table.exists() or table.is_symlink()):
        raise DataError(
            f"{table} already exists",
            expected="a new file for the table",
            fix="remove it first, or pass another file",
        )
    peak_memory(model)  # a damaged file may end the process
    classifier = Classifier(model, background=background, members=True, threshold=threshold)
    rows = []
    for path in list(_image_files(images)):  # an empty folder is refused before any work
        row = _classify(classifier, path)
        rows.append(row)
        if not as_json and row[1]:
            print_text(_line(path, row[1], top))
    if as_json:
        print_json("predict", model=str(model), images=_answers(rows, top))
    if table:
        with translate_file_errors(table, "--csv"):
            _write_table(table, rows, classifier.labels)
    if errors := [error for _, _, error in rows if error]:
        received = f"{len(rows) - len(errors)} of {len(rows)} classified"
        raise DataError("\n".join(errors), received=received)


def _classify(classifier: Classifier, path: Path) -> Row:
    """Return the path with its prediction, or with the reason why there is none."""
    try:
        (result,) = classifier.predict(path)
    except DataError as error:
        return path, None, error.what
    return path, result, ""


def _line(path: Path, result: Prediction, top: int) -> str:
    best = "  ".join(_describe(label, result) for label in _likeliest(result, top))
    return f"{path}: {best}" if result.sure else f"{path}: not sure: {best}"


def _answers(rows: list[Row], top: int) -> list[dict[str, Any]]:
    """Return what `--json` prints for each image."""
    answers: list[dict[str, Any]] = []
    for path, result, error in rows:
        if result is None:
            answers.append({"path": str(path), "error": error})
            continue
        labels = _likeliest(result, top)
        answer = {
            "path": str(path),
            "label": result.label,
            "probability": result.probability,
            "sure": result.sure,
            "probabilities": {label: result.probabilities[label] for label in labels},
        }
        if result.members:
            answer["members"] = [{name: one[name] for name in labels} for one in result.members]
        answers.append(answer)
    return answers


def _write_table(file: Path, rows: list[Row], labels: Sequence[str]) -> None:
    """Write a row for each image: the likeliest label, and the probability of every label."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        # Prefixed, since a class may be called "path".
        classes = [cell(f"probability of {label}") for label in labels]
        writer.writerow(["path", "label", "probability", "sure", "error", *classes])
        for path, result, error in rows:
            if result is None:
                writer.writerow([cell(str(path)), "", "", "", cell(error), *[""] * len(labels)])
                continue
            probabilities = [f"{result.probabilities[label]:.6f}" for label in labels]
            best = f"{result.probability:.6f}"
            found = [cell(str(path)), cell(result.label), best, result.sure, ""]
            writer.writerow([*found, *probabilities])


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
