"""The loop reaches its target in rounds, and a killed loop ends like one that was never killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kpipe.errors import PruneError
from kpipe.paired_loss import PairedLoss
from kpipe.prune import (
    PruneResult,
    Selection,
    count_macs,
    prune_filters,
    scan_sensitivity,
)
from kpipe.prune.graph.graph_reading import read
from kpipe.prune.graph.model_graph import Graph
from kpipe.prune.loop.reachability import refuse_unreachable
from tests.prune import nets
from tests.prune.masking import randomize

# Keras' own save converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

IMAGES = np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 3)).astype("float32")
LABELS = np.arange(8) % 4
FOUR = Selection(round_to=4, seed=5)


class Killed(BaseException):
    """Simulates the end of the process."""


def finetune(model: keras.Model, round: int) -> None:
    # Eager: quicker than tracing so small a model, and its dropout draws all the same.
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    model.train_on_batch(IMAGES, LABELS)


def evaluate(model: keras.Model) -> float:
    return float(np.mean(np.argmax(model(IMAGES), axis=1) == LABELS))


def pruned(folder: Path | None = None, **changes: Any) -> PruneResult:
    arguments: dict[str, Any] = {
        "macs": 0.5,
        "finetune": finetune,
        "evaluate": evaluate,
        "selection": FOUR,
        "folder": folder,
        "rounds": 2,
        **changes,
    }
    return prune_filters(randomize(nets.lite()), **arguments)


@pytest.fixture(scope="module")
def whole() -> PruneResult:
    """A loop that was never killed, without a folder."""
    return pruned()


def same(first: keras.Model, second: keras.Model) -> bool:
    pairs = zip(first.weights, second.weights, strict=True)
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs)


@pytest.mark.slow
def test_the_share_falls_geometrically_to_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    original = randomize(nets.lite())
    macs, weights = count_macs(original), [w.numpy() for w in original.weights]
    coupled: list[keras.Model] = []

    def counting(model: keras.Model) -> Graph:
        coupled.append(model)
        return read(model)

    monkeypatch.setattr("kpipe.prune.dependencies.dependency_graph.read", counting)
    result = prune_filters(
        original, macs=0.4, finetune=finetune, evaluate=evaluate, rounds=2, selection=FOUR
    )
    # A copy of the original, and the model before and after each round.
    assert len(coupled) == len({id(model) for model in coupled}) == 5
    rows = result.history
    assert [row.round for row in rows] == [0, 1, 2]
    assert rows[0].share == 1 and rows[0].before == rows[0].after
    for row in rows:
        assert 0.7 * 0.4 ** (row.round / 2) < row.share <= 0.4 ** (row.round / 2)
        assert row.share == row.macs / macs
    assert count_macs(result.model) == rows[-1].macs
    assert result.model.count_params() == rows[-1].params
    assert result.model.get_layer("head").filters == rows[-1].filters["head"]
    assert all(count % 4 == 0 for count in rows[-1].filters.values())
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(weights, original.weights, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("deadly", [1, 2])
def test_a_killed_loop_ends_like_one_never_killed(
    tmp_path: Path, whole: PruneResult, deadly: int
) -> None:
    def killing(model: keras.Model, round: int) -> None:
        if round == deadly:
            raise Killed
        finetune(model, round)

    with pytest.raises(Killed):
        pruned(tmp_path, finetune=killing)
    asked: list[int] = []

    def counting(model: keras.Model, round: int) -> None:
        asked.append(round)
        finetune(model, round)

    continued = pruned(tmp_path, finetune=counting)
    assert asked == list(range(deadly, 3))
    assert continued.history == whole.history
    assert same(continued.model, whole.model)
    again = pruned(tmp_path, finetune=counting)
    assert asked == list(range(deadly, 3)) and same(again.model, whole.model)


@pytest.mark.slow
def test_a_stored_round_that_was_damaged_is_made_again(tmp_path: Path) -> None:
    whole = pruned(tmp_path, rounds=1)
    (tmp_path / "round-01.keras").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="round-01"):
        assert same(pruned(tmp_path, rounds=1).model, whole.model)
    (tmp_path / "history.json").write_text("{")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert same(pruned(tmp_path, rounds=1).model, whole.model)


@pytest.mark.slow
def test_a_folder_of_another_loop_is_refused(tmp_path: Path) -> None:
    pruned(tmp_path, rounds=1)
    for changes in ({"macs": 0.6}, {"criterion": "l2"}, {"selection": Selection(round_to=4)}):
        with pytest.raises(PruneError, match="another loop"):
            pruned(tmp_path, **{"rounds": 1, **changes})
    rows = json.loads((tmp_path / "history.json").read_text())["rounds"]
    assert len(rows) == 2


def test_invalid_arguments_are_refused_before_any_training() -> None:
    def never(*_: object) -> None:
        raise AssertionError("trained")

    def asked(**changes: Any) -> str:
        with pytest.raises(PruneError) as caught:
            pruned(**{"finetune": never, "evaluate": never, **changes})
        return str(caught.value)

    text = asked(macs=0.01)
    assert "cannot be pruned to macs=0.01" in text
    share = float(text.split("macs of at least ")[1].split(",")[0])
    assert pruned(macs=share, rounds=1).history[-1].share <= share
    for share in (1.0, 0.0, 1.5):
        assert "macs is out of range\n  expected: the fraction of macs" in asked(macs=share)
    assert "latency_ms is out of range" in asked(macs=None, latency_ms=0.0, latency=count_macs)
    assert "rounds is out of range" in asked(rounds=0)
    assert "tolerance is out of range" in asked(tolerance=-0.1)
    assert "did you mean 'l1'" in asked(criterion="l11")
    assert "one target" in asked(macs=None)
    assert "macs=0.5, params=0.5" in asked(params=0.5)
    assert "params of at least" in asked(macs=None, params=0.001)
    assert "kpipe.lite.latency" in asked(macs=None, latency_ms=1.0)
    slow = {"macs": None, "latency": lambda model: count_macs(model) / 1e5}
    whole = count_macs(nets.lite()) / 1e5
    assert f"below {whole:.4g}" in asked(**slow, latency_ms=whole)
    nearest = float(asked(**slow, latency_ms=0.01).split("latency_ms=")[2].split(",")[0])
    assert 0.01 < nearest < whole
    for name, value in (("min_filters_fraction", 2), ("round_to", 0)):
        with pytest.raises(PruneError, match=f"{name} of the selection is out of range"):
            Selection(**{name: value})


@pytest.mark.parametrize("value", [None, float("nan"), [0.5, 0.9]])
def test_scores_that_are_not_finite_numbers_are_refused(value: Any) -> None:
    with pytest.raises(PruneError, match="evaluate did not return a finite number"):
        pruned(evaluate=lambda model: value)


def test_finetune_must_return_a_model() -> None:
    with pytest.raises(PruneError, match="finetune did not return a model"):
        pruned(finetune=lambda model, round: "History")


@pytest.mark.slow
def test_a_model_that_finetune_returns_is_used() -> None:
    def replaced(model: keras.Model, round: int) -> keras.Model:
        copy = keras.models.clone_model(model)
        copy.set_weights([0 * w for w in model.get_weights()])
        return copy

    result = pruned(finetune=replaced, rounds=1)
    assert all(not weight.numpy().any() for weight in result.model.weights)


@pytest.mark.slow
def test_a_share_of_the_parameters_is_reached() -> None:
    result = pruned(macs=None, params=0.4)
    whole = randomize(nets.lite()).count_params()
    assert [row.params <= 0.4 ** (row.round / 2) * whole for row in result.history] == [True] * 3
    assert result.history[-1].params > 0.25 * whole


@pytest.mark.slow
def test_a_latency_is_reached_by_asking_for_it() -> None:
    asked: list[int] = []

    def latency(model: keras.Model) -> float:
        asked.append(count_macs(model))
        return asked[-1] / 1e5

    whole = count_macs(nets.lite()) / 1e5
    result = pruned(macs=None, latency_ms=0.5 * whole, latency=latency)
    assert result.history[0].latency_ms == whole
    assert 0.35 * whole < result.history[-1].latency_ms <= 0.5 * whole
    assert result.history[-1].latency_ms == count_macs(result.model) / 1e5
    assert len(asked) < 40, "each of the two rounds halves its choices, and measures one of each"


def halvable() -> keras.Model:
    """What the classifier costs stays, so half of the filters cost a little more than half."""
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(32, 1, name="wide")(pixels)
    x = keras.layers.Conv2D(19, 3, padding="same", name="narrow")(x)
    x = keras.layers.Dense(3, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(pixels, x)


def at_least(fraction: float) -> Selection:
    ratios = {"narrow": 0.0}
    return Selection(normalize="none", max_pruning_ratio=ratios, min_filters_fraction=fraction)


@pytest.mark.parametrize("fraction", [0.1, 0.5])
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_half_of_the_filters_meets_half_of_the_macs(rounds: int, fraction: float) -> None:
    history = prune_filters(
        halvable(),
        macs=0.5,
        rounds=rounds,
        criterion=lambda candidate: np.arange(len(candidate.group.units)),
        finetune=lambda *_: None,
        evaluate=lambda _: 0.5,
        selection=at_least(fraction),
    ).history
    assert history[-1].filters == {"wide": 16, "narrow": 19}
    assert 0.5 < history[-1].share < 0.50005


def test_a_target_that_is_met_to_four_digits_is_not_refused_beforehand() -> None:
    refuse_unreachable(halvable(), at_least(0.5), macs=0.5)
    with pytest.raises(PruneError, match=r"macs of at least 0\.5001"):
        refuse_unreachable(halvable(), at_least(0.5), macs=0.4999)


@pytest.mark.slow
def test_a_latency_beside_another_target_is_only_reported() -> None:
    result = pruned(latency=lambda model: 7.0, rounds=1)
    assert [row.latency_ms for row in result.history] == [7.0, 7.0]
    assert result.history[-1].share <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("fallen", [1, 2])
def test_it_stops_below_the_tolerance_with_the_model_before(tmp_path: Path, fallen: int) -> None:
    scores = {0: 0.9, 1: 0.85, 2: 0.84} | {fallen: 0.79}
    whole = count_macs(nets.lite())
    rounds = iter([0.9, *(x for n in (1, 2) for x in (0.0, scores[n]))])
    trained: list[int] = []
    result = pruned(
        tmp_path,
        evaluate=lambda model: next(rounds),
        finetune=lambda model, number: trained.append(number),
        tolerance=0.1,
    )
    assert trained == list(range(1, fallen + 1)) == [row.round for row in result.history][1:]
    assert f"round {fallen} scores 0.79, more than 0.1 below the 0.9" in result.stopped
    expected = result.history[fallen - 1].macs
    assert count_macs(result.model) == expected and (fallen == 2 or expected == whole)
    again = pruned(tmp_path, evaluate=None, finetune=None, tolerance=0.1)
    assert again.history == result.history and again.stopped == result.stopped
    assert same(again.model, result.model)


@pytest.mark.slow
def test_within_the_tolerance_it_goes_on_to_the_target() -> None:
    result = pruned(evaluate=lambda model: 0.5, tolerance=0.0)
    assert not result.stopped and len(result.history) == 3


def outcomes_of(*counts: int, images: int = 40) -> Callable[[Any], np.ndarray]:
    """Return an `evaluate` that counts the first images as correct, as many as listed."""
    left = iter(counts)
    return lambda model: np.arange(images) < next(left)


@pytest.mark.parametrize(("lost", "stops"), [(0, False), (1, False), (4, False), (5, True)])
def test_a_loss_that_chance_explains_does_not_stop_it(lost: int, stops: bool) -> None:
    # Every lost image is beyond the tolerance; 4 lost and none won have p = 0.06.
    evaluated = outcomes_of(36, 0, 36 - lost)
    result = pruned(evaluate=evaluated, finetune=lambda *_: None, tolerance=0.01, rounds=1)
    assert bool(result.stopped) == stops
    assert result.history[0].after == 0.9 and result.history[0].loss == PairedLoss(40, 0, 0)
    assert result.history[1].loss == PairedLoss(40, lost, 0)
    if stops:
        assert "5 of 40 images lost, 0 won against the original model" in result.stopped


def test_a_killed_loop_compares_with_the_original_model_again(tmp_path: Path) -> None:
    def killed(model: keras.Model, number: int) -> None:
        if number == 2:
            raise Killed

    arguments: dict[str, Any] = {"tolerance": 0.01, "folder": tmp_path}
    with pytest.raises(Killed):
        pruned(evaluate=outcomes_of(36, 0, 35, 0), finetune=killed, **arguments)
    evaluated = outcomes_of(0, 33, 36)  # round 2 after removal, retrained, the original model
    result = pruned(evaluate=evaluated, finetune=lambda *_: None, **arguments)
    assert [row.loss.lost for row in result.history if row.loss] == [0, 1, 3]


def test_results_of_other_images_are_refused() -> None:
    results = iter([np.ones(40, bool), np.ones(40, bool), np.ones(39, bool)])
    with pytest.raises(PruneError, match="other images"):
        pruned(evaluate=lambda model: next(results), finetune=lambda *_: None, rounds=1)


def test_ceilings_hold_over_all_rounds() -> None:
    chosen = Selection(round_to=4, max_pruning_ratio={"head": 0.25})
    assert pruned(selection=chosen).history[-1].filters["head"] >= 24
    with pytest.raises(PruneError, match="max_pruning_ratio of the selection"):
        Selection(max_pruning_ratio={"head": 1.5})


@pytest.mark.parametrize("asked", [{}, {"macs": None, "latency_ms": 1.0, "latency": count_macs}])
def test_max_pruning_ratios_of_unknown_groups_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(PruneError, match=r"'heat'.*\n.*'head'"):
        pruned(**asked, selection=Selection(max_pruning_ratio={"heat": 0.5}))


@pytest.mark.slow
def test_criteria_see_the_calibration_images() -> None:
    asked = {"rounds": 1, "criterion": "mean_activation", "calibration": [IMAGES]}
    seen = pruned(**asked)
    told = pruned(**asked, selection=Selection(round_to=4, seed=5, data=[IMAGES]))
    assert seen.history == told.history and same(seen.model, told.model)
    with pytest.raises(PruneError, match="calibration="):
        pruned(rounds=1, criterion="mean_activation")


@pytest.mark.slow
def test_the_model_that_is_given_is_never_trained_nor_compiled() -> None:
    model = randomize(nets.lite())
    model.compile(keras.optimizers.Adam(), "mse")
    optimizer, seen = model.optimizer, []
    times = iter([10.0])

    def compiling(smaller: keras.Model) -> float:
        seen.append(smaller)
        smaller.compile("sgd", "mse")
        return 0.5

    def latency(smaller: keras.Model) -> float:  # a first measurement that was disturbed
        compiling(smaller)
        return next(times, 3.0)

    def finetune(smaller: keras.Model, number: int) -> None:
        seen.append(smaller)

    prune_filters(
        model, latency_ms=6.0, latency=latency, finetune=finetune, evaluate=compiling, rounds=1
    )
    scan_sensitivity(model, compiling, fractions=(0.5,))
    assert model.optimizer is optimizer
    assert all(smaller is not model for smaller in seen)


def test_a_raw_operation_named_like_a_layer_survives_the_rounds() -> None:
    """Both are called Add, as in MobileNetV3."""
    pixels = nets.image()
    x = nets.conv(pixels, 8, "first") + 3.0
    x = keras.layers.Add(name="sum")([x, nets.conv(x, 8, "second")])
    model = randomize(nets.classifier(pixels, x))
    result = prune_filters(
        model, macs=0.5, finetune=lambda *_: None, evaluate=lambda _: 0.5, selection=FOUR
    )
    assert [len(keras.tree.flatten(op.input)) for op in result.model.operations] == [
        len(keras.tree.flatten(op.input)) for op in model.operations
    ]
    assert result.model(IMAGES).shape == (8, 4)
