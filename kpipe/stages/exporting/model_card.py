"""`model_card.md`: training data, accuracy, and known limits of an exported file.

After Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv 1810.03993).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["model_card"]

_FEW = 30  # test photos of a class; with fewer, its figures are rough
_IMBALANCED = 3  # training photos of the largest class over those of the smallest


def model_card(
    metrics: Mapping[str, Any],
    counts: Mapping[str, Sequence[int]],
    *,
    license: str = "",
    note: str = "",
) -> str:
    """Return the card as Markdown.

    Args:
        metrics: the content of `metrics.json`.
        counts: class name, in order -> number of photos in train, validation, and test.
        license: license of the model, as declared.
        note: note on the data, as declared.
    """
    row = next(row for row in metrics["models"] if row["file"] == metrics["final"])
    classes = list(counts)
    size = metrics["image_size"]
    lines = [
        f"# {row['name']}",
        "",
        f"`{row['file']}`, {row['size'] / 1e6:.2f} MB. Input: an upright RGB photo of {size} x "
        f"{size} pixels in [0, 255]. Output: a probability for each of {len(classes)} labels. "
        "The file contains the preprocessing and the labels.",
        "",
        f"- License: {license or 'not declared'}",
        f"- Data: {note or 'no note was declared'}",
        f"- Seed: {metrics['seed']}",
        "",
        "## Data",
        "",
        "| class | train | validation | test |",
        "|---|---|---|---|",
        *(
            f"| {_cell(name)} | {' | '.join(f'{count:,}' for count in found)} |"
            for name, found in counts.items()
        ),
        f"| all | {' | '.join(f'{sum(c):,}' for c in zip(*counts.values(), strict=True))} |",
        "",
        "## On the test split, by LiteRT",
        "",
        f"Accuracy {row['accuracy']:.1%}, balanced accuracy {row['balanced_accuracy']:.1%}. "
        f"Accuracy of its Keras model {row['keras_accuracy']:.1%}, with the same prediction for "
        f"{row['agreement']:.1%} of {row['images']:,} photos: {row['lost']:,} lost, "
        f"{row['won']:,} won.",
        "",
        *_calibration(row["calibration"]),
        "| class | photos | recall | precision |",
        "|---|---|---|---|",
        *_by_class(classes, row["confusion"]),
        "",
        "## Known limits",
        "",
        *(f"- {limit}" for limit in _limits(counts, row["confusion"])),
    ]
    return "\n".join(lines) + "\n"


def _calibration(found: Mapping[str, Any]) -> list[str]:
    """Return paragraphs on the meaning of the probabilities."""
    test = found["test"]
    lines = [
        f"Expected calibration error of its probabilities {test['ece']:.1%} ({found['bins']} bins "
        f"of equal width); {test['ece_by_chance']:.1%} is the mean of a perfectly calibrated model "
        f"on as many photos. Without what chance adds, the root mean square error is "
        f"{test['debiased']:.1%}.",
        "",
    ]
    if found["temperature"] is not None:
        lines[0] += (
            f" Before its logits were divided by the temperature {found['temperature']:.2f}, "
            f"fitted on {found['validation']['photos']:,} validation photos, it was "
            f"{test['ece_before']:.1%}."
        )
    if found["threshold"] is not None:
        correct = test["accuracy_answered"]
        lines += [
            f"A prediction below {found['threshold']:.1%} counts as not sure, so that the file "
            f"answers {found['coverage']:.0%} of the validation photos. It answers "
            f"{test['answered']:.1%} of the test photos"
            + (f", and is right for {correct:.1%} of these." if correct is not None else "."),
            "",
        ]
    return lines


def _by_class(classes: Sequence[str], confusion: list[list[int]]) -> list[str]:
    lines = []
    for n, name in enumerate(classes):
        correct, photos = confusion[n][n], sum(confusion[n])
        predicted = sum(line[n] for line in confusion)
        recall = f"{correct / photos:.1%}" if photos else "no photos"
        precision = f"{correct / predicted:.1%}" if predicted else "never predicted"
        lines.append(f"| {_cell(name)} | {photos:,} | {recall} | {precision} |")
    return lines


def _limits(counts: Mapping[str, Sequence[int]], confusion: list[list[int]]) -> list[str]:
    limits = [
        "The model returns one of its labels for any photo, even one of none of its classes.",
        "The figures hold for photos like those of the test split.",
    ]
    few = [name for name, (_, _, test) in counts.items() if test < _FEW]
    if few:
        limits.append(f"Fewer than {_FEW} test photos, so rough figures: {', '.join(few)}.")
    train = [train for train, _, _ in counts.values()]
    if min(train) and (ratio := max(train) / min(train)) >= _IMBALANCED:
        limits.append(
            f"The largest class has {ratio:.1f} times as many training photos as the smallest."
        )
    errors = [
        (count / sum(confusion[i]), true, predicted)
        for i, true in enumerate(counts)
        for j, (predicted, count) in enumerate(zip(counts, confusion[i], strict=True))
        if i != j and count
    ]
    if errors:
        fraction, true, predicted = max(errors)
        limits.append(
            f"The most frequent error: {fraction:.1%} of {true} predicted as {predicted}."
        )
    return limits


def _cell(name: str) -> str:
    """Escape a name for a Markdown table."""
    return name.replace("|", "\\|")
