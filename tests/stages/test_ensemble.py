from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kpipe import Pipeline
from kpipe.core.journal import Journal
from kpipe.core.stage import Context, Stage
from kpipe.errors import KpipeError, PipelineError, TrainingError
from kpipe.prune import count_macs
from kpipe.stages import Augment, Balance, Data, Distill, Ensemble, Export, FilterPrune, FineTune
from kpipe.stages.photos.photo_dataset import PhotoDataset
from kpipe.stages.shared.model_folder import load_model, read_metadata, reset_keras, save_model
from kpipe.stages.training import member_training as module
from kpipe.stages.training.snapshots import cycle_of
from kpipe.stages.training.training_run import TrainingRun
from tests.stages.conftest import RECIPE, given, toy_folder

PIXELS = np.random.default_rng(0).uniform(0, 255, (40, 32, 32, 3)).astype("float32")
SMALL = {"alpha": 0.25, "weights": None}
TWO = (FineTune("MobileNet", **SMALL), FineTune("MobileNetV2", **{**SMALL, "alpha": 0.35}))


def colored(seed: int, certainty: float = 6.0, bias: float = 0.0) -> keras.Model:
    """A network that sees colors, and misses another one for each seed."""
    pixels = keras.Input((32, 32, 3))
    means = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pixels))
    model = keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(means))
    colors = np.eye(3)[:, [2, 1, 0]]  # blue, green, red
    noise = np.random.default_rng(seed).normal(0, 0.5, (3, 3))
    missed = -0.6 * certainty * np.eye(3)[seed % 3] if bias == 0 else bias * np.eye(3)[0]
    model.layers[-1].set_weights([certainty * colors + noise, missed])
    return model


def colored_folder(folder: Path, seed: int, **options: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    reset_keras(seed)
    (folder / "history.json").write_text('[{"title": "colored"}]')
    save_model(colored(seed, **options), folder, title="colored", recipe=RECIPE)
    return folder


def made_of(perform, data_folder: Path, tmp_path: Path, members: int, **fields: Any) -> Path:
    """An ensemble of networks that are trained already: as after a kill before the combination."""
    first = colored_folder(tmp_path / "first", seed=1)
    for number in range(2, members + 1):
        colored_folder(tmp_path / "Ensemble" / f"member-{number}", seed=number)
    return perform(Ensemble(members=members, **fields), data=data_folder, model=first)[0]


def predictions(members: int) -> np.ndarray:
    """(members, images, classes)."""
    return np.stack([colored(seed)(PIXELS).numpy() for seed in range(1, members + 1)])


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "ensemble.json").read_text())


def combined(name: str, each: np.ndarray, weights: np.ndarray) -> np.ndarray:
    if name == "vote":
        return np.eye(3)[each.argmax(axis=2)].mean(axis=0)
    if name == "geometric":
        product = np.exp(np.tensordot(weights, np.log(each), 1))
        return product / product.sum(axis=1, keepdims=True)
    return np.tensordot(weights, each, 1)


@pytest.mark.parametrize("combine", ["average", "geometric", "weighted", "greedy", "vote"])
def test_an_ensemble_is_the_declared_combination(perform, data_folder, tmp_path, combine) -> None:
    folder = made_of(perform, data_folder, tmp_path, 3, combine=combine)
    report = report_of(folder)
    assert report["chosen"] == combine
    weights = np.array([member["weight"] for member in report["members"]])
    if combine not in ("weighted", "greedy"):
        np.testing.assert_allclose(weights, 1 / 3)
    assert weights.sum() == pytest.approx(1)
    expected = combined(combine, predictions(3), weights)
    model = load_model(folder)
    np.testing.assert_allclose(model(PIXELS), expected, atol=0.0101 if combine == "vote" else 1e-5)
    assert read_metadata(folder)["title"] == f"ensemble of 3 ({combine})"
    used = int((weights > 0).sum())
    assert read_metadata(folder)["macs"] == used * count_macs(colored(1))
    titles = [row["title"] for row in json.loads((folder / "history.json").read_text())]
    assert titles == ["colored"] * 2


def test_what_it_brings_is_kept_and_noted(perform, data_folder: Path, tmp_path: Path) -> None:
    folder = made_of(perform, data_folder, tmp_path, 3)
    report = report_of(folder)
    photos = PhotoDataset.read(_context(data_folder, tmp_path))
    images = photos.images[photos.manifest.rows("validation")].astype("float32")
    labels = photos.manifest.labels("validation")
    each = np.stack([colored(seed)(images).numpy() for seed in (1, 2, 3)])
    hits = each.argmax(axis=2) == labels
    assert [m["accuracy"] for m in report["members"]] == pytest.approx(hits.mean(axis=1).tolist())
    assert report["oracle"] == pytest.approx(hits.any(axis=0).mean())
    average = next(row for row in report["combinations"] if row["name"] == "average")
    truth = each.mean(axis=0)[np.arange(len(labels)), labels]
    assert average["loss"] == pytest.approx(-np.log(truth).mean(), rel=1e-5)
    events = (tmp_path / "Ensemble.jsonl").read_text()
    assert f"at least one is right on {report['oracle']:.1%}" in events


def _context(data_folder: Path, tmp_path: Path) -> Any:
    return Context(tmp_path, given({"data": data_folder}), 3, Journal(tmp_path / "journal.jsonl"))


def test_where_it_is_no_better_it_is_the_best_member(perform, data_folder, tmp_path) -> None:
    first = colored_folder(tmp_path / "first", seed=1, certainty=60.0, bias=0.1)
    for number in (2, 3):
        colored_folder(tmp_path / "Ensemble" / f"member-{number}", seed=number, bias=30.0)
    folder, events = perform(Ensemble(members=3), data=data_folder, model=first)
    np.testing.assert_array_equal(load_model(folder)(PIXELS), load_model(first)(PIXELS))
    assert report_of(folder)["chosen"] == "member 1 of 3"
    assert [member["weight"] for member in report_of(folder)["members"]] == [1, 0, 0]
    assert read_metadata(folder)["title"] == "ensemble of 3 (best member)"
    assert read_metadata(folder)["macs"] == count_macs(colored(1))
    assert any("is that member alone" in event.get("text", "") for event in events)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, PhotoDataset, str]]:
    """What members are trained by, instead of training: (recipe, photos, title) of each."""
    rows: list[tuple[Any, PhotoDataset, str]] = []

    def train(recipe: Any, photos: PhotoDataset, run: TrainingRun, start: Path | None) -> None:
        rows.append((recipe, photos, run.title))
        colored_folder(run.folder, seed=len(rows))

    monkeypatch.setattr(module, "train_network", train)
    return rows


def test_each_further_member_has_its_own_seed_and_strength_of_augmentation(
    perform, data_folder: Path, tmp_path: Path, trained, augmentation: Path
) -> None:
    first = toy_folder(tmp_path / "first", seed=1)
    perform(Ensemble(members=4), data=data_folder, model=first, augmentation=augmentation)
    assert len(trained) == 3
    photos = [photos for _, photos, _ in trained]
    assert len({one.seed for one in photos} | {3}) == 4
    assert {one.batch_size for one in photos} == {RECIPE["batch_size"]}
    strengths = [one.augmenter.rotate / 0.1 for one in photos if one.augmenter]
    assert len(set(strengths)) == 3
    assert min(strengths) < 1 < max(strengths)
    assert all(0.5 <= strength <= 1.5 for strength in strengths)
    orders = [next(iter(one.training_dataset(0)))[1].numpy().tolist() for one in photos]
    assert len(set(map(tuple, orders))) > 1


@pytest.fixture(scope="module")
def augmentation(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("augmentation")
    Augment(rotate=0.1, brightness=0.2).run(_context(data_folder, folder))
    return folder


@pytest.mark.parametrize("vary", ["seed", "augmentation", "resample", ("seed", "resample"), None])
def test_members_differ_by_what_is_named(
    perform, data_folder, tmp_path, trained, augmentation, vary
) -> None:
    first = toy_folder(tmp_path / "first", seed=1)
    stage = Ensemble(members=3, vary=vary)
    perform(stage, data=data_folder, model=first, augmentation=augmentation)
    photos = [photos for _, photos, _ in trained]
    named = ("seed", "augmentation") if vary is None else vary
    assert ({one.seed for one in photos} == {3}) == ("seed" not in named)
    rotations = {one.augmenter.rotate for one in photos if one.augmenter}
    assert (rotations == {0.1}) == ("augmentation" not in named)
    assert len({one.bootstrap for one in photos}) == (2 if "resample" in named else 1)
    # Members of other strengths alone would be equal on the same features.
    assert all((one.feature_source is None) == (vary == "augmentation") for one in photos)


def test_a_list_trains_each_and_gives_the_best(perform, data_folder, tmp_path, trained) -> None:
    recipes = [*TWO, dataclasses.replace(TWO[0], batch_size=8)]
    folder, _ = perform(Ensemble(recipes, combine="greedy"), data=data_folder)
    assert [recipe for recipe, *_ in trained] == recipes
    assert [photos.batch_size for _, photos, _ in trained] == [32, 32, 8]
    assert [photos.seed for _, photos, _ in trained] == [3, 2003, 3003]
    assert [title for *_, title in trained][1] == "member 2 of 3, MobileNetV2 0.35"
    losses = [member["loss"] for member in report_of(folder)["members"]]
    best = int(np.argmin(losses))
    expected = load_model(folder / f"member-{best + 1}")(PIXELS)
    np.testing.assert_array_equal(load_model(folder / "model")(PIXELS), expected)
    assert read_metadata(folder / "model")["title"] == recipes[best].title


def test_a_run_goes_on_in_the_member_in_which_it_was_killed(
    perform, data_folder: Path, tmp_path: Path, trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.train_network

    def killed(recipe: Any, photos: PhotoDataset, run: TrainingRun, start: Path | None) -> None:
        if "member 3" in run.title:
            raise KeyboardInterrupt
        real(recipe, photos, run, start)

    stage = Ensemble([*TWO, *TWO], vary="seed")
    with monkeypatch.context() as patch:
        patch.setattr(module, "train_network", killed)
        with pytest.raises(KeyboardInterrupt):
            perform(stage, data=data_folder)
    perform(stage, data=data_folder)
    assert [title.split(",")[0] for *_, title in trained] == [
        f"member {n} of 4" for n in range(1, 5)
    ]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, trained) -> list[int]:
    """Numbers of members whose training fails."""
    numbers: list[int] = []
    real = module.train_network

    def train(recipe: Any, photos: PhotoDataset, run: TrainingRun, start: Path | None) -> None:
        if any(f"member {number} of" in run.title for number in numbers):
            (run.folder / "training").mkdir()
            raise TrainingError("the loss is NaN")
        real(recipe, photos, run, start)

    monkeypatch.setattr(module, "train_network", train)
    return numbers


def test_a_member_that_fails_is_named(perform, data_folder, failing) -> None:
    failing.append(2)
    with pytest.raises(TrainingError, match=r"member 2 of 3, MobileNetV2 0\.35: the loss"):
        perform(Ensemble([*TWO, TWO[0]]), data=data_folder)


def test_the_others_go_on_where_that_is_declared(perform, data_folder, failing, trained) -> None:
    failing.append(2)
    stage = Ensemble([*TWO, TWO[0]], on_failure="go_on")
    folder, events = perform(stage, data=data_folder)
    rows = report_of(folder)["members"]
    assert [row.get("failed") for row in rows] == [
        None,
        "the loss is NaN",
        None,
    ]
    assert any("failed, and the ensemble goes on" in event.get("text", "") for event in events)
    assert [path.name for path in (folder / "member-2").iterdir()] == ["failed.json"]
    assert read_metadata(folder)["title"].startswith("ensemble of 2")
    assert stage.judge(folder) == []
    with pytest.raises(TrainingError, match="1 of 3 members"):
        dataclasses.replace(stage, on_failure="stop").judge(folder)


def test_one_member_is_no_ensemble(perform, data_folder, failing) -> None:
    failing.extend((1, 2))
    with pytest.raises(TrainingError, match=r"(?s)only 1 of 3 members.*member 1.*member 2"):
        perform(Ensemble([*TWO, TWO[0]], on_failure="go_on"), data=data_folder)


@pytest.mark.parametrize("on_failure", ["stop", "go_on"])
def test_a_member_of_nan_is_refused_by_name(perform, data_folder, tmp_path, on_failure) -> None:
    first = colored_folder(tmp_path / "first", seed=1)
    colored_folder(tmp_path / "Ensemble" / "member-2", seed=2, bias=np.nan)
    colored_folder(tmp_path / "Ensemble" / "member-3", seed=3)
    stage = Ensemble(members=3, on_failure=on_failure)
    if on_failure == "stop":
        with pytest.raises(TrainingError, match="member 2 of 3 predicts NaN"):
            perform(stage, data=data_folder, model=first)
    else:
        folder, _ = perform(stage, data=data_folder, model=first)
        assert "predicts NaN" in report_of(folder)["members"][1]["failed"]
        assert np.isfinite(load_model(folder)(PIXELS)).all()


# In a pipeline


def pipeline(*stages: Stage) -> Pipeline:
    return Pipeline("p", [Data("photos", image_size=32), *stages])


def test_a_list_needs_no_network_before_it_and_gives_one() -> None:
    links = pipeline(Ensemble(TWO), FilterPrune(), Export()).links()
    assert links[1] == {"data": (0,), "balance": (), "augmentation": ()}
    assert links[2]["model"] == (1,)
    assert links[3]["model"] == (1, 2)
    with pytest.raises(PipelineError, match="Ensemble needs 'model'"):
        pipeline(Ensemble(3), FilterPrune())


def test_beside_a_network_of_its_own_a_list_is_only_a_teacher() -> None:
    links = pipeline(FineTune("MobileNet", **SMALL), Ensemble(TWO), FilterPrune(), Export()).links()
    assert "model" not in links[2]
    assert links[3]["model"] == (1,)
    assert links[4]["ensemble"] == (2,)


def test_a_nested_stage_is_rendered_loaded_and_set() -> None:
    declared = pipeline(Ensemble(list(TWO), vary=["seed"]), Export())
    namespace: dict[str, Any] = {}
    exec(declared.render(), namespace)
    assert namespace["pipeline"] == declared
    shorter = declared.with_settings(["FineTune.epochs=3", "Ensemble.combine=greedy"])
    assert [one.epochs for one in shorter.stages[1].members] == [3, 3]
    assert shorter.stages[1].combine == "greedy"
    with pytest.raises(PipelineError, match="did you mean 'epochs'"):
        declared.with_settings(["FineTune.epoch=3"])
    both = pipeline(FineTune("VGG16"), Ensemble(TWO), Export()).with_settings(["FineTune.epochs=3"])
    assert both.stages[1].epochs == 3
    assert [one.epochs for one in both.stages[2].members] == [(20, 640)] * 2
    assert both.with_settings(["Ensemble.members=3"]).stages[2].members == 3


def test_errors_of_members_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PipelineError, match=r"(?s)members\[1\]: epochs=0.*members\[2\]: backbone"):
        pipeline(Ensemble([TWO[0], FineTune("VGG16", epochs=0), FineTune("VGG")]), Export())
    with pytest.raises(PipelineError, match=r"members\[1\]: .*32"):
        pipeline(Ensemble([TWO[0], FineTune("Xception", weights=None)]), Export())
    deep = dataclasses.replace(TWO[0], unfreeze_phases=20)
    with pytest.raises(KpipeError, match=r"members\[1\]: "):
        Ensemble([TWO[0], deep]).rehearse([Data("photos", image_size=32)])


def test_equal_members_are_refused() -> None:
    assert Ensemble([TWO[0], TWO[0]]).validation_errors() == []
    assert "equal" in Ensemble([TWO[0], TWO[0]], vary=()).validation_errors()[0]
    assert Ensemble(TWO, vary=()).validation_errors() == []
    network = FineTune("MobileNet", **SMALL)
    alone = Ensemble(3, vary="augmentation")
    with pytest.raises(PipelineError, match="without Augment before it"):
        pipeline(network, alone, Export())
    pipeline(Augment(), network, alone, Export())
    pipeline(Balance("augment_minority"), network, alone, Export())


def test_weights_files_of_members_are_sources() -> None:
    files = [FineTune("VGG16", weights=name) for name in ("a.h5", "b.h5", "a.h5")]
    assert Ensemble(files).sources() == (Path("a.h5"), Path("b.h5"))
    assert Ensemble(3).sources() == ()


def test_the_key_changes_with_the_version_of_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Ensemble(TWO).configuration()
    assert before["members"][0]["backbone"] == "MobileNet"
    monkeypatch.setattr(FineTune, "version", 99)
    assert Ensemble(TWO).configuration() != before


def test_the_combinations_are_those_of_the_ensemble_package() -> None:
    import typing

    from kpipe.ensemble.assessment import Combination

    hints = typing.get_type_hints(Ensemble)
    assert set(typing.get_args(hints["combine"])) == {*typing.get_args(Combination), "soup"}


def test_the_members_of_a_run_differ_and_make_up_its_ensemble(walk) -> None:
    folder = walk.made_by("Ensemble")
    members = [load_model(walk.made_by("FineTune")), load_model(folder / "member-2")]
    one, other = (model(PIXELS).numpy() for model in members)
    assert np.abs(one - other).max() > 1e-3
    weights = [member["weight"] for member in report_of(folder)["members"]]
    expected = weights[0] * one + weights[1] * other
    np.testing.assert_allclose(load_model(folder)(PIXELS), expected, atol=1e-6)
    assert not list(folder.rglob("training*")), "checkpoints are left in the result"


def test_what_repeats_a_recipe_follows_it() -> None:
    student = Distill("MobileNetV2", alpha=0.35)
    with pytest.raises(PipelineError, match="put Ensemble directly after FineTune"):
        pipeline(FineTune("MobileNet"), student, Ensemble(2), Export())
    assert pipeline(FineTune("MobileNet"), student, Ensemble(TWO), Export())


@pytest.fixture
def cycles(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, int, Path | None]]:
    """What snapshots are trained by, instead of training: (recipe, seed, start); no third one."""
    rows: list[tuple[Any, int, Path | None]] = []

    def train(recipe: Any, photos: PhotoDataset, run: TrainingRun, start: Path | None) -> None:
        rows.append((recipe, photos.seed, start))
        if "member 3 of 5" in run.title:
            raise TrainingError("the loss is NaN")
        colored_folder(run.folder, seed=len(rows) + 1)

    monkeypatch.setattr(module, "train_network", train)
    return rows


def test_each_snapshot_goes_on_from_the_one_before(perform, data_folder, tmp_path, cycles) -> None:
    first = colored_folder(tmp_path / "first", seed=1)
    stage = Ensemble(members=4, vary="snapshot", cycle_epochs=3)
    folder, _ = perform(stage, data=data_folder, model=first)
    assert [start for *_, start in cycles] == [first, folder / "member-2", folder / "member-3"]
    assert [seed for _, seed, _ in cycles] == [2003, 3003, 4003]
    for recipe, *_ in cycles:
        assert (recipe.epochs, recipe.head_epochs, recipe.switch_to) == (3, 0, None)
        assert recipe.backbone == RECIPE["backbone"]


def test_a_snapshot_goes_on_from_the_last_that_did_not_fail(
    perform, data_folder, tmp_path, cycles
) -> None:
    first = colored_folder(tmp_path / "first", seed=1)
    stage = Ensemble(members=5, vary="snapshot", on_failure="go_on")
    folder, _ = perform(stage, data=data_folder, model=first)
    starts = [first, folder / "member-2", folder / "member-2", folder / "member-4"]
    assert [start for *_, start in cycles] == starts


def test_a_cycle_is_a_quarter_of_the_recipe(photos: PhotoDataset) -> None:
    few = FineTune("MobileNet", epochs=(20, 640), batch_size=8)
    assert cycle_of(few, None, photos).epochs == 20  # of 80, the most for few photos
    assert cycle_of(dataclasses.replace(few, epochs=9), None, photos).epochs == 3
    switched = dataclasses.replace(few, switch_to="sgd", switch_when=3, low_res_size=32)
    cycle = cycle_of(switched, 2, photos)
    assert cycle.validation_errors() == []
    assert (cycle.epochs, cycle.low_res_size, cycle.switch_to) == (2, None, None)


def test_a_soup_is_one_network_with_which_later_stages_go_on(
    perform, data_folder: Path, tmp_path: Path
) -> None:
    folder = made_of(perform, data_folder, tmp_path, 3, combine="soup")
    report = report_of(folder)
    assert report["chosen"] == "soup"
    weights = np.array([member["weight"] for member in report["members"]])
    assert set(weights) <= {0, 1 / 2, 1 / 3}
    for number, mean in enumerate(load_model(folder).get_weights()):
        each = [colored(seed).get_weights()[number] for seed in (1, 2, 3)]
        np.testing.assert_allclose(mean, np.tensordot(weights, each, 1), rtol=1e-5)
    (score,) = (row for row in report["combinations"] if row["name"] == "soup")
    assert score["loss"] < min(member["loss"] for member in report["members"])
    np.testing.assert_array_equal(load_model(folder / "model")(PIXELS), load_model(folder)(PIXELS))
    about = read_metadata(folder)
    assert about == {"title": "ensemble of 3 (soup)", "macs": count_macs(colored(1))}
    assert read_metadata(folder / "model") == {"title": "colored, soup", "recipe": RECIPE}


def test_later_stages_read_the_soup() -> None:
    for combine, giver in (("soup", 2), ("average", 1)):
        ensemble = Ensemble(members=2, combine=combine)
        stages = [Data("photos"), FineTune("MobileNetV2"), ensemble, FilterPrune(), Export()]
        assert Pipeline("p", stages).links()[3]["model"] == (giver,)


def test_snapshots_are_trained_and_mixed_and_resume(perform, data_folder, tmp_path) -> None:
    """With normalization that trains, whose statistics the soup measures anew."""
    first = toy_folder(tmp_path / "first", seed=1)
    stage = Ensemble(members=3, combine="soup", cycle_epochs=1)

    def kill(event: Any) -> None:
        if event["event"] == "epoch" and event["what"].startswith("member 3"):
            raise KeyboardInterrupt

    for name, listeners in (("whole", ()), ("killed", (kill,)), ("killed", ())):
        (tmp_path / name).mkdir(exist_ok=True)
        journal = Journal(tmp_path / f"{name}.jsonl", listeners, "Ensemble")
        inputs = given({"data": data_folder, "model": first})
        with contextlib.suppress(KeyboardInterrupt):
            stage.run(Context(tmp_path / name, inputs, 3, journal))
    files = [path for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"model.keras", "ensemble.json"}
    for path in files:
        other = tmp_path / "killed" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == other.read_bytes(), path
    one, two, three = (
        load_model(folder).get_weights()
        for folder in (first, *(tmp_path / "whole" / f"member-{n}" for n in (2, 3)))
    )
    # A cycle at a low learning rate goes a short way, and a new network would be far away.
    for near, far in ((one, two), (two, three)):
        assert 0 < max(np.abs(a - b).max() for a, b in zip(near, far, strict=True)) < 1


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"combine": "soup", "vary": "seed"}, "trained apart is of no use"),
        ({"members": TWO, "vary": ("seed", "snapshot")}, "write their number, no list"),
        ({"members": TWO, "combine": "soup"}, "write their number, no list"),
        ({"cycle_epochs": 2}, 'is for vary="snapshot"'),
    ],
)
def test_soups_of_networks_that_were_trained_apart_are_refused(fields, problem) -> None:
    (error,) = Ensemble(**fields).validation_errors()
    assert problem in error
