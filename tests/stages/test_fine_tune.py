from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from kpipe.core.journal import Journal
from kpipe.data import Augmenter, Mixer, Sampling
from kpipe.errors import TrainingError, WeightsError
from kpipe.stages import FineTune
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.model_folder import load_model, read_metadata
from kpipe.stages.training.efforts import epochs_of
from kpipe.stages.training.network_training import train_network
from kpipe.stages.training.phase_planning import plan_phases
from kpipe.stages.training.reasons import reasons
from kpipe.stages.training.training_run import TrainingRun
from kpipe.train import backbone, classifier
from tests.moving_statistics import set_moving_statistics


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    """A weights file of the backbone without its top, with statistics of the drawn photos."""
    base = backbone("MobileNet", image_size=32, weights=None, alpha=0.25)
    set_moving_statistics(base, np.load(data_folder / "images.npy").astype("float32"))
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    base.save_weights(path)
    return path


@pytest.mark.slow
def test_only_the_head_trains_where_no_layer_of_the_backbone_may(
    perform, data_folder: Path, weights: Path
) -> None:
    stage = FineTune(
        "MobileNet", alpha=0.25, weights=str(weights), retrain_last=0, epochs=2, batch_size=12
    )
    folder, events = perform(stage, data=data_folder)
    given = backbone("MobileNet", image_size=32, weights=weights, alpha=0.25)
    made = load_model(folder)
    for layer in given.layers:
        for one, other in zip(layer.weights, made.get_layer(layer.name).weights, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)
    start = keras.initializers.GlorotUniform(3)((256, 3))
    assert not np.allclose(made.get_layer("head_logits").kernel, start)
    told = "\n".join(event["text"] for event in events if event["event"] == "note")
    assert (
        "MobileNet 0.25 at 32 px: the head alone trains: 1 of 55 layers with weights, "
        "from head_logits on, on features of 1 view" in told
    )
    assert [e["epoch"] for e in events if e["event"] == "epoch"] == [1, 2]
    assert not list(folder.glob("training*")), "checkpoints are left in the result"
    assert "resumed_at" not in (folder / "history.json").read_text()
    assert FineTune(**read_metadata(folder)["recipe"]) == stage


@pytest.mark.slow
def test_phases_are_trained_in_order_and_told(perform, data_folder: Path, weights: Path) -> None:
    stage = FineTune(
        "MobileNet",
        alpha=0.25,
        weights=str(weights),
        head_epochs=2,
        cached_views=2,
        cached_phases="all",
        retrain_last=20,
        unfreeze_phases=2,
        layer_decay=0.9,
        backbone_factor=0.5,
        freeze_norm=True,
        warmup=0.2,
        clip_norm=1.0,
        epochs=5,
        label_smoothing=0.1,
        ema_momentum=0.9,
        patience=5,
        switch_to="sgd",
        switch_when=2,
        batch_size=12,
    )
    folder, events = perform(stage, data=data_folder)
    notes = [event["text"] for event in events if event["event"] == "note"]
    trained = [
        re.search(r"phase (\d) of 3: the head(.*) trains?: (\d+) of", note) for note in notes
    ]
    phases = [(int(m[1]), int(m[3])) for m in trained if m]
    assert [number for number, _ in phases] == [1, 2, 3]
    assert sum("on features of 1 view" in note for note in notes) == 3
    assert 1 == phases[0][1] < phases[1][1] < phases[2][1]
    assert [e["epoch"] for e in events if e["event"] == "epoch"] == [1, 2, 3, 4, 5, 6, 7]
    (history,) = json.loads((folder / "history.json").read_text())
    assert history["history"]["phase"] == [1, 1, 2, 2, 3, 3, 3]
    assert history["switched_at"] == 6
    assert FineTune(**read_metadata(folder)["recipe"]) == stage


@pytest.mark.slow
def test_features_of_the_frozen_backbone_are_computed_once_for_all_runs(
    perform, data_folder: Path, weights: Path, tmp_path: Path
) -> None:
    def trained(name: str, shared: Path | None, **fields) -> list[np.ndarray]:
        stage = FineTune(
            "MobileNet", alpha=0.25, weights=str(weights), retrain_last=0, epochs=2, **fields
        )
        folder, _ = perform(stage, into=tmp_path / name, shared=shared, data=data_folder)
        return load_model(folder).get_weights()

    def files() -> dict[str, int]:
        found = (tmp_path / "shared").glob("features/*/*/features.npy")
        return {str(path): path.stat().st_mtime_ns for path in found}

    alone = trained("alone", None)
    for one, other in zip(alone, trained("first", tmp_path / "shared"), strict=True):
        np.testing.assert_array_equal(one, other)
    made = files()
    assert len(made) == 2  # one view, since nothing is augmented, and validation
    trained("another rate", tmp_path / "shared", learning_rate=0.01, label_smoothing=0.1)
    assert files() == made


def test_features_are_told_apart_by_all_that_they_depend_on(
    photos: PhotoDataset, weights: Path, tmp_path: Path
) -> None:
    model = classifier(backbone("MobileNet", image_size=32, weights=weights, alpha=0.25), 3)
    photos = dataclasses.replace(photos, shared_folder=tmp_path)

    def folder(photos: PhotoDataset = photos, **fields) -> Path | None:
        recipe = FineTune("MobileNet", alpha=0.25, weights=str(weights), **fields)
        phase, *_ = plan_phases(recipe, photos, model)
        return phase.features.folder

    same = [
        folder(),
        folder(epochs=3, head_epochs=7, learning_rate=0.1, dropout=0.5, ema_momentum=0.9),
    ]
    flipped = dataclasses.replace(photos, augmenter=Augmenter(flip="horizontal"))
    other = [
        folder(flipped),
        folder(flipped, cached_views=2),
        folder(dataclasses.replace(photos, seed=4)),
        folder(dataclasses.replace(photos, origin="other photos")),
        folder(dataclasses.replace(photos, batch_size=9)),
        folder(dataclasses.replace(photos, resized_to=24)),
        folder(dataclasses.replace(photos, mixer=Mixer(cut_mix=1.0))),
        folder(dataclasses.replace(photos, sampling=Sampling("oversample"))),
    ]
    model.layers[2].set_weights([w + 1 for w in model.layers[2].get_weights()])
    other.append(folder())
    assert len(set(same)) == 1 and len({*same, *other}) == 10
    second = plan_phases(
        FineTune("MobileNet", weights=str(weights), head_epochs=1, retrain_last=0), photos, model
    )[1]
    assert second.features.folder is None, "its epochs of the data are others"


@pytest.mark.slow
def test_trained_small_it_ends_at_full_size(photos: PhotoDataset, tmp_path: Path) -> None:
    recipe = FineTune(
        "MobileNetV2",
        alpha=0.35,
        weights=None,
        retrain_last=0,
        low_res_size=33,  # odd, so that it pads otherwise than the full size does
        epochs=1,
        full_res_epochs=1,
    )
    large = dataclasses.replace(photos, images=photos.images.repeat(2, 1).repeat(2, 2))
    run = TrainingRun("net", tmp_path, Journal(tmp_path / "journal.jsonl"))
    train_network(recipe, large, run)
    small, full = json.loads((tmp_path / "history.json").read_text())
    assert small["title"] == "net at 33 px" and len(small["history"]["loss"]) == 1
    assert full["title"] == "net at 64 px" and len(full["history"]["loss"]) == 1
    model = load_model(tmp_path)
    built = backbone("MobileNetV2", alpha=0.35, image_size=64, weights=None)
    made = keras.Model(model.input, model.get_layer(built.layers[-1].name).output)
    built.set_weights(made.get_weights())
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(made(pixels), built(pixels), rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"unfreeze_phases": 3, "epochs": 2}, "unfreeze_phases=3"),
        ({"unfreeze_phases": 2, "retrain_last": 0}, "unfreezes nothing"),
        ({"switch_to": "sgd", "switch_when": 20}, "has 20 epochs"),
        ({"switch_to": "sgd", "switch_when": 4, "unfreeze_phases": 5}, "has 4 epochs"),
        ({"switch_to": "adam", "switch_when": "swats"}, "not from 'adam' to 'adam'"),
        (
            {"switch_to": "sgd", "switch_when": "swats", "switch_learning_rate": 0.1},
            "switch_learning_rate=0.1",
        ),
    ],
)
def test_fields_that_do_not_go_together_are_named(fields: dict, named: str) -> None:
    (problem,) = FineTune("MobileNet", **fields).validation_errors()
    assert named in problem


def test_a_size_that_is_not_smaller_is_refused(perform, data_folder: Path, weights: Path) -> None:
    stage = FineTune("MobileNet", alpha=0.25, weights=str(weights), low_res_size=32)
    with pytest.raises(TrainingError, match="low_res_size=32"):
        perform(stage, data=data_folder)


def test_weights_that_cannot_be_had_are_an_error_and_never_random(
    perform, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPIPE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="KPIPE_WEIGHTS") as caught:
        perform(FineTune("MobileNet", alpha=0.25), data=data_folder)
    assert "mobilenet" in str(caught.value) and str(tmp_path) in str(caught.value)
    assert not (tmp_path / "FineTune" / "model.keras").exists()


def test_weights_of_another_architecture_are_refused(
    perform, data_folder: Path, weights: Path
) -> None:
    with pytest.raises(WeightsError, match=r"alpha=0\.5"):
        perform(FineTune("MobileNet", alpha=0.5, weights=str(weights)), data=data_folder)


def test_a_width_that_the_architecture_does_not_take_is_refused(perform, data_folder: Path) -> None:
    with pytest.raises(WeightsError, match="VGG16 has no alpha"):
        perform(FineTune("VGG16", alpha=0.5, weights=None), data=data_folder)


def test_the_history_tells_the_switch_and_the_epoch_that_was_kept(walk) -> None:
    (history,) = json.loads((walk.made_by("FineTune") / "history.json").read_text())
    assert history["title"] == "MobileNet 0.25"
    losses = history["history"]["val_loss"]
    assert len(losses) == 4
    assert history["switched_at"] == 2
    assert history["best_epoch"] == int(np.argmin(losses))
    notes = walk.notes("FineTune")
    assert "MobileNet 0.25: sgd from epoch 3 on" in notes
    assert f"kept epoch {history['best_epoch'] + 1}" in notes
    epochs = [e for e in walk.events if (e["event"], e.get("stage")) == ("epoch", "FineTune")]
    assert [epoch["metrics"]["val_loss"] for epoch in epochs] == losses


def test_the_trained_model_takes_raw_pixels_and_gives_probabilities(walk) -> None:
    model = load_model(walk.made_by("FineTune"))
    assert model.input_shape == (None, 32, 32, 3) and model.input.dtype == "float32"
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(model(pixels).numpy().sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "epochs", "rates"),
    [
        ({"weights": "imagenet"}, [10, 80], [9e-4, 3e-4]),
        (
            {"weights": "imagenet", "head_epochs": 2, "head_learning_rate": 0.1},
            [2, 80],
            [0.1, 3e-4],
        ),
        ({"weights": "imagenet", "retrain_last": 0}, [80], [1e-3]),
        ({"weights": "imagenet", "head_epochs": 0}, [80], [3e-4]),
        ({"weights": "imagenet", "head_epochs": 0, "learning_rate": 0.01}, [80], [0.01]),
        ({"weights": None}, [80], [1e-3]),
    ],
)
def test_a_new_head_trains_alone_first_where_pretrained_layers_could_suffer(
    fields: dict, epochs: list[int], rates: list[float], photos: PhotoDataset
) -> None:
    model = classifier(backbone("MobileNet", image_size=32, weights=None, alpha=0.25), 3)
    phases = plan_phases(FineTune("MobileNet", **fields), photos, model)
    assert [phase.config.epochs for phase in phases] == epochs
    assert [phase.config.learning_rate for phase in phases] == pytest.approx(rates)
    assert phases[-1].freeze_norm == (fields["weights"] is not None)
    assert (phases[0].last, phases[0].features is None) == (
        (0, False) if len(epochs) == 2 or fields.get("retrain_last") == 0 else (None, True)
    )


def test_the_last_layers_train_on_features_where_asked(
    photos: PhotoDataset, tmp_path: Path
) -> None:
    model = classifier(backbone("MobileNet", image_size=32, weights=None, alpha=0.25), 3)
    photos = dataclasses.replace(photos, shared_folder=tmp_path)
    recipe = FineTune("MobileNet", cached_phases="all", retrain_last=20, unfreeze_phases=2)
    head, *others = plan_phases(recipe, photos, model)
    assert head.features.folder is not None
    assert [phase.features.folder for phase in others] == [None, None], "a part of their own"
    refused = FineTune("MobileNet", cached_phases="all", retrain_last=None).validation_errors()
    assert "needs frozen layers" in refused[0]


@pytest.mark.parametrize(
    ("declared", "steps", "expected"),
    [
        (7, 1, 7),
        ((20, 640), 100, 20),
        ((20, 640), 32, 20),
        ((20, 640), 31, 21),
        ((20, 640), 8, 80),
        ((20, 640), 1, 80),
        ((6, 200), 20, 10),
    ],
)
def test_few_photos_are_seen_more_often(
    declared: int | tuple[int, int], steps: int, expected: int
) -> None:
    assert epochs_of(declared, steps) == expected


def test_a_declaration_is_the_same_after_json() -> None:
    recipe = FineTune("MobileNet", effort="quick")
    assert FineTune(**json.loads(json.dumps(recipe.configuration()))) == recipe
    text = FineTune("MobileNet").with_field("effort", "best")
    assert text.epochs == (60, 1920)


def test_what_follows_from_the_photos_is_told_with_its_reason() -> None:
    assert reasons(FineTune("MobileNet"), 100) == (
        "20 epochs of 100 steps; learning rate 0.0003, because pretrained layers train; "
        "10 epochs of the head before, because it is new; "
        "normalization as pretrained, because statistics of few photos are worse"
    )
    scratch = FineTune("MobileNet", weights=None, epochs=3)
    assert reasons(scratch, 8) == "learning rate 0.001, because only new layers train"
    declared = FineTune("MobileNet", epochs=3, learning_rate=1e-4, head_epochs=0, freeze_norm=False)
    assert reasons(declared, 8) == ""


def test_an_effort_trains_all_layers_and_leaves_what_is_declared(photos: PhotoDataset) -> None:
    model = classifier(backbone("MobileNet", image_size=32, weights=None, alpha=0.25), 3)
    quick = plan_phases(FineTune("MobileNet", effort="quick"), photos, model)
    assert [(phase.last, phase.config.epochs) for phase in quick] == [(0, 10), (None, 24)]
    declared = plan_phases(FineTune("MobileNet", effort="quick", epochs=3), photos, model)
    assert [phase.config.epochs for phase in declared] == [10, 3]
    refused = FineTune("MobileNetV2", weights=None, retrain_last=60).validation_errors()
    assert len(refused) == 1 and "freezes random weights" in refused[0]
