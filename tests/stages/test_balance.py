from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kpipe import Pipeline
from kpipe.core.journal import Journal
from kpipe.core.stage import Context
from kpipe.data import Manifest, Sampling, class_shares, class_weight
from kpipe.errors import DataError, PipelineError
from kpipe.stages import Augment, Balance, Data, FineTune
from kpipe.stages.photos.photo_dataset import PhotoDataset

EVERY = [
    Balance(),
    Balance(weighting="effective", beta=0.9),
    Balance("oversample"),
    Balance("oversample", ratio=0.9, and_class_weight=True),
    Balance("undersample"),
    Balance("undersample", ratio=0.8),
    Balance("undersample", ratio=0.8, and_class_weight=True, weighting="effective", beta=0.9),
    Balance("augment_minority", ratio=0.9),
]


@pytest.fixture(params=EVERY, ids=repr)
def balance(request: pytest.FixtureRequest) -> Balance:
    return request.param


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., PhotoDataset]:
    def made(**inputs: Path) -> PhotoDataset:
        found = {kind: (folder,) for kind, folder in inputs.items()}
        journal = Journal(tmp_path / "journal.jsonl")
        return PhotoDataset.read(Context(tmp_path, found, 3, journal), batch_size=7)

    return made


def content(folder: Path) -> dict:
    return json.loads((folder / "balance.json").read_text())


def notes(events: list) -> str:
    return "\n".join(event["text"] for event in events if event["event"] == "note")


def seen(photos: PhotoDataset, epochs: int) -> np.ndarray:
    """The share of each class in the loss, counted batch by batch."""
    mass = np.zeros(3)
    for images, labels, *weights in photos.training_dataset(0).take(
        epochs * photos.steps_per_epoch
    ):
        shares = np.eye(3)[labels] if labels.shape.rank == 1 else labels.numpy()
        assert len(images) == len(shares)
        factors = weights[0].numpy() if weights else np.ones(len(shares))
        mass += (
            factors @ shares * [(photos.fit_class_weight or {}).get(index, 1) for index in range(3)]
        )
    return mass / mass.sum()


def test_the_frequencies_are_those_of_the_batches(
    balance: Balance, perform, read, data_folder: Path
) -> None:
    folder, _ = perform(balance, data=data_folder)
    photos = read(data=data_folder, balance=folder)
    told = content(folder)["frequencies"]
    np.testing.assert_allclose(seen(photos, 2), told["after"], rtol=1e-5)
    labels = photos.manifest.labels("train")
    np.testing.assert_allclose(told["before"], np.bincount(labels) / len(labels))


@pytest.mark.parametrize("balance", [Balance(), Balance("undersample"), None], ids=repr)
def test_the_frequencies_stay_when_photos_are_mixed(
    balance: Balance | None, perform, read, data_folder: Path
) -> None:
    """Each photo takes its weight into the mixture; over many batches the shares come out."""
    augmentation, _ = perform(Augment(mix_up=0.4), data=data_folder)
    inputs = {"data": data_folder, "augmentation": augmentation}
    labels = Manifest.load(data_folder).labels("train")
    expected = np.bincount(labels) / len(labels)
    if balance:
        inputs["balance"], _ = perform(balance, data=data_folder)
        expected = np.array(content(inputs["balance"])["frequencies"]["after"])
    photos = read(**inputs)
    assert photos.mixer is not None and photos.fit_class_weight is None
    np.testing.assert_allclose(seen(photos, 30), expected, atol=0.02)


def test_what_the_stage_leaves_is_what_the_library_gives(
    balance: Balance, perform, data_folder: Path
) -> None:
    folder, events = perform(balance, data=data_folder)
    labels = Manifest.load(data_folder).labels("train")
    sampling = weights = None
    if balance.method != "class_weight":
        sampling = Sampling(balance.method, balance.ratio)
    if sampling is None or balance.and_class_weight:
        left = labels if sampling is None else labels[sampling.draw(labels, 0, 0)[0]]
        weights = class_weight(left, method=balance.weighting, beta=balance.beta)
    found = content(folder)
    assert found["method"] == balance.method
    assert found["sampling"] == (vars(sampling) if sampling else None)
    assert found["class_weight"] == (pytest.approx(list(weights.values())) if weights else None)
    after = class_shares(labels, sampling, weights)
    assert found["frequencies"]["after"] == pytest.approx(list(after.values()))
    before = np.bincount(labels) / len(labels)
    for index, name in enumerate(("blue", "green", "red")):
        assert f"{name} {before[index]:.1%} -> {after[index]:.1%}" in notes(events)
        if weights:
            assert f", x{weights[index]:.2f})" in notes(events)


def test_the_note_counts_the_photos_of_an_epoch(perform, data_folder: Path) -> None:
    _, events = perform(Balance("oversample"), data=data_folder)
    blue, green, red = np.bincount(Manifest.load(data_folder).labels("train"))
    assert blue > green > red
    whole = blue + green + red
    assert notes(events) == (
        f"fraction of the loss for each class, by oversample: "
        f"blue {blue / whole:.1%} -> 33.3% ({blue} photos), "
        f"green {green / whole:.1%} -> 33.3% ({green} -> {blue} photos), "
        f"red {red / whole:.1%} -> 33.3% ({red} -> {blue} photos)"
    )


def test_sampling_and_weights_together_leave_equal_shares(perform, data_folder: Path) -> None:
    for method in ("oversample", "undersample", "augment_minority"):
        stage = Balance(method, ratio=0.8, and_class_weight=True)
        found = content(perform(stage, data=data_folder)[0])
        assert found["frequencies"]["after"] == pytest.approx([1 / 3] * 3)
        assert max(found["class_weight"]) < 1.3  # the sampling did the rest


def test_a_class_without_training_photos_is_named(perform, data_folder: Path, tmp_path) -> None:
    manifest = Manifest.load(data_folder)
    kept = ~((manifest.table["label"] == "red") & (manifest.table["split"] == "train"))
    less = Manifest(manifest.table[kept], manifest.classes, manifest.problems)
    less.save(tmp_path / "less")
    for method in ("class_weight", "oversample"):
        with pytest.raises(DataError, match="no label of class 'red'"):
            perform(Balance(method), data=tmp_path / "less")


def test_every_balance_has_no_problems(balance: Balance) -> None:
    assert balance.validation_errors() == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ratio": 0.5}, "ratio=0.5: does nothing without a sampling method"),
        ({"and_class_weight": True}, "and_class_weight=True: does nothing without a sampling"),
        ({"beta": 0.5}, 'beta=0.5: does nothing without weighting="effective"'),
        (
            {"method": "oversample", "weighting": "effective"},
            "weighting='effective': does nothing without and_class_weight=True",
        ),
        (
            {"method": "undersample", "and_class_weight": True, "beta": 0.5},
            "beta=0.5: does nothing without weighting",
        ),
    ],
)
def test_a_field_that_would_do_nothing_is_refused(fields: dict, said: str) -> None:
    (problem,) = Balance(**fields).validation_errors()
    assert said in problem


def test_two_balances_are_refused_with_what_to_write_instead() -> None:
    with pytest.raises(PipelineError, match=r"Balance appears 2 times.*and_class_weight=True"):
        Pipeline(
            "twice",
            [Data("photos"), Balance("oversample"), Balance(), FineTune("MobileNetV2")],
        )


def test_two_of_data_or_augment_are_refused() -> None:
    stages = [Data("a"), Data("b"), Augment(), Augment(flip=""), FineTune("MobileNetV2")]
    with pytest.raises(PipelineError, match=r"(?s)Data appears 2 times.*Augment appears 2 times"):
        Pipeline("twice", stages)
