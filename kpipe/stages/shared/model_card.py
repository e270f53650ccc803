"""`model_card.md`: what a file was made from, how right it is, and what is known against it.

After Mitchell et al. 2019 (arXiv 1810.03993), as far as a run knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["model_card"]

_FEW = 30  # below so many test photos, what is measured of a class says little
_UNEVEN = 3


def model_card(
    metrics: Mapping[str, Any],
    counts: Mapping[str, Sequence[int]],
    *,
    license: str = "",
    note: str = "",
) -> str:
    """The card as Markdown.

    Args:
        metrics: what stands in `metrics.json`.
        counts: name of each class, in order -> its photos of train, validation and test.
        license: of the model, as declared.
        note: on the data, as declared.
    """
    row = next(row for row in metrics["models"] if row["file"] == metrics["final"])
    classes = list(counts)
    size = metrics["image_size"]
    lines = [
        f"# {row['name']}",
        "",
        f"`{row['file']}`, {row['size'] / 1e6:.2f} MB: an upright RGB photo of {size} x {size} "
        f"pixels in [0, 255] in, a probability for each of {len(classes)} labels out. "
        "Preprocessing is inside; so are the labels.",
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
        f"Accuracy {row['accuracy']:.1%}, balanced accuracy {row['balanced_accuracy']:.1%}; the "
        f"Keras model that it was made from {row['keras_accuracy']:.1%}, with the same answer on "
        f"{row['agreement']:.1%} of {row['images']:,} photos.",
        "",
        "| class | photos | recall | precision |",
        "|---|---|---|---|",
        *_by_class(classes, row["confusion"]),
        "",
        "## Known limits",
        "",
        *(f"- {limit}" for limit in _limits(counts, row["confusion"])),
    ]
    return "\n".join(lines) + "\n"


def _by_class(classes: Sequence[str], confusion: list[list[int]]) -> list[str]:
    lines = []
    for n, name in enumerate(classes):
        right, all_of = confusion[n][n], sum(confusion[n])
        called = sum(line[n] for line in confusion)
        recall = f"{right / all_of:.1%}" if all_of else "no photos"
        precision = f"{right / called:.1%}" if called else "never answered"
        lines.append(f"| {_cell(name)} | {all_of:,} | {recall} | {precision} |")
    return lines


def _limits(counts: Mapping[str, Sequence[int]], confusion: list[list[int]]) -> list[str]:
    limits = [
        "It answers with one of its labels whatever it is shown, also what it never learned.",
        "Its figures hold for photos like those of the test split.",
    ]
    few = [name for name, (_, _, test) in counts.items() if test < _FEW]
    if few:
        limits.append(f"Fewer than {_FEW} test photos, so rough figures: {', '.join(few)}.")
    learned = [train for train, _, _ in counts.values()]
    if min(learned) and max(learned) >= _UNEVEN * min(learned):
        limits.append(
            f"The largest class has {max(learned) / min(learned):.1f} times as many training "
            "photos as the smallest."
        )
    errors = [
        (count / sum(confusion[i]), true, answer)
        for i, true in enumerate(counts)
        for j, (answer, count) in enumerate(zip(counts, confusion[i], strict=True))
        if i != j and count
    ]
    if errors:
        share, true, answer = max(errors)
        limits.append(f"Its most frequent error: {share:.1%} of {true} are called {answer}.")
    return limits


def _cell(name: str) -> str:
    """A name that does not break a table."""
    return name.replace("|", "\\|")
