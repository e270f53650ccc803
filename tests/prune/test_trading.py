"""For milliseconds goes what adds least loss for each; latencies and losses here are arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from kpipe.errors import PruneError
from kpipe.prune import PruneResult, Selection, prune_filters, residual_blocks
from kpipe.prune.statistics import Reference
from kpipe.prune.surgery import plan, remove_filters
from kpipe.prune.trading import _hull, _Step, _summed
from tests.prune import nets
from tests.prune.masking import randomize

IMAGES = np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 3)).astype("float32")
Cost = Callable[[keras.Model], float]


def by_width(**costs: float) -> Cost:
    """So much for every filter of the layers that are named; none for one that is gone."""

    def cost(model: keras.Model) -> float:
        return sum(
            costs[layer.name] * layer.filters for layer in model.layers if layer.name in costs
        )

    return cost


def traded(
    latency: Cost, loss: Cost | None, share: float, model: keras.Model | None = None, **changes: Any
) -> PruneResult:
    model = randomize(nets.lite()) if model is None else model
    arguments: dict[str, Any] = {
        "latency_ms": share * latency(model),
        "latency": latency,
        "loss": loss,
        "finetune": lambda model, number: None,
        "evaluate": lambda model: 0.5,
        "rounds": 1,
        **changes,
    }
    return prune_filters(model, **arguments)


def widths(result: PruneResult) -> dict[str, tuple[int, int]]:
    """The groups that were narrowed: filters before, and after."""
    first, last = (result.history[place].filters for place in (0, -1))
    return {name: (n, last.get(name, 0)) for name, n in first.items() if last.get(name, 0) != n}


def test_what_adds_least_loss_for_each_millisecond_goes() -> None:
    """Both save as much; the loss asks for one of them, and then for the other."""
    latency = by_width(a_expand=1.0, head=0.75)
    for cheap, dear in (("a_expand", "head"), ("head", "a_expand")):
        loss = by_width(**{cheap: -0.1, dear: -1.0})
        assert set(widths(traded(latency, loss, 0.85))) == {cheap}


def test_what_saves_no_time_stays() -> None:
    """Of 48 filters, 32 and 16 are the next widths; other groups cost nothing and stay whole."""
    chosen = Selection(floor=0, blocks=False)
    result = traded(by_width(b_expand=1.0), lambda model: 0.0, 0.5, selection=chosen)
    assert widths(result) == {"b_expand": (48, 16)}


def test_widths_are_the_multiple_times_a_power_of_two() -> None:
    chosen = Selection(multiple=6, floor=0, blocks=False)
    result = traded(by_width(b_expand=1.0), lambda model: 0.0, 0.9, selection=chosen)
    assert widths(result) == {"b_expand": (48, 24)}


def test_the_floor_is_the_last_width() -> None:
    chosen = Selection(floor=0.8, blocks=False)
    result = traded(by_width(b_expand=1.0), lambda model: 0.0, 0.9, selection=chosen)
    assert widths(result) == {"b_expand": (48, 40)}


def blockwise(model: keras.Model) -> float:
    """A block costs the same however narrow it is, as where a launch is what takes time."""
    return float(sum(layer.name.endswith("_dw") for layer in model.layers))


def test_a_block_goes_where_that_is_what_saves() -> None:
    """Block a has no shortcut; of b and c, whose loss is less."""
    loss = by_width(b_expand=-1.0, c_expand=-2.0)
    result = traded(blockwise, loss, 0.7)
    gone = {layer.name for layer in nets.lite().layers} - {x.name for x in result.model.layers}
    assert "b_add" in gone and "b_dw" in gone and not any(name.startswith("c_") for name in gone)
    assert widths(result) == {"b_expand": (48, 0)}
    assert result.model(IMAGES).shape == (8, 4)


@pytest.mark.parametrize(
    "held",
    [
        {"blocks": False},
        {"protect": ("b_dw", "c_project")},
        {"protect": ("b_add", "c_add")},
        {"ceilings": {"b_expand": 0.9, "c_expand": 0.5}},
    ],
)
def test_blocks_stay_where_they_are_held(held: dict[str, Any]) -> None:
    with pytest.raises(PruneError, match="cannot be cut to latency_ms"):
        traded(blockwise, lambda model: 0.0, 0.7, selection=Selection(**held))


def test_a_narrow_block_goes_after_its_filters() -> None:
    """Narrowed at first, because that adds nothing; gone where narrow is not enough."""

    def latency(model: keras.Model) -> float:
        return by_width(b_expand=0.1)(model) + blockwise(model)

    def loss(model: keras.Model) -> float:
        return 0.0 if any(layer.name == "b_dw" for layer in model.layers) else 1.0

    chosen = Selection(protect=("c_dw",))
    assert widths(traded(latency, loss, 0.9, selection=chosen)) == {"b_expand": (48, 32)}
    assert widths(traded(latency, loss, 0.4, selection=chosen)) == {"b_expand": (48, 0)}


def test_a_step_stays_where_a_later_one_is_enough_alone() -> None:
    """The head adds less for each millisecond, and saves too little to be of use."""
    latency = by_width(a_expand=1.0, head=0.1)
    loss = by_width(a_expand=-1.0, head=-0.01)
    assert widths(traded(latency, loss, 0.9)) == {"a_expand": (24, 16)}


def test_it_goes_on_where_one_step_of_each_is_not_enough() -> None:
    latency = by_width(a_expand=1.0, b_expand=1.0, c_expand=1.0, head=1.0)
    chosen = Selection(floor=0, blocks=False)
    result = traded(latency, lambda model: 0.0, 0.25, selection=chosen)
    assert latency(result.model) <= 0.25 * latency(nets.lite())


def test_progress_counts_the_trials_of_each_pass() -> None:
    """Three groups of a block each and the head, and the two blocks with a shortcut."""
    told: list[tuple[int, int]] = []
    chosen = Selection(protect=("stem", "a_project"))
    latency = by_width(head=1.0)
    traded(
        latency,
        lambda model: 0.0,
        0.9,
        selection=chosen,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 6) for done in range(1, 7)]


def test_without_a_loss_the_score_decides() -> None:
    latency = by_width(a_expand=1.0, head=0.75)
    score = by_width(a_expand=1.0, head=0.1)
    result = traded(latency, None, 0.85, evaluate=score)
    assert set(widths(result)) == {"head"}


def test_a_name_that_goes_with_its_block_keeps_the_floor_of_its_group() -> None:
    """The branch comes first and names the group; without it, the projection does."""
    inputs = nets.image()
    x = nets.conv(inputs, 16, "stem")
    y = nets.conv(x, 16, "narrow")
    y = layers.Conv2D(32, 3, padding="same", name="branch")(y)
    x = layers.Conv2D(32, 1, name="projection")(x)
    x = layers.Add(name="sum")([y, x])
    model = randomize(nets.classifier(inputs, nets.conv(x, 16, "last")))
    (block,) = residual_blocks(model)
    assert "branch" in block.branch and "projection" not in block.branch

    def latency(model: keras.Model) -> float:
        names = {layer.name for layer in model.layers}
        return 100.0 * ("branch" in names) + by_width(projection=1.0)(model)

    chosen = Selection(floor=0.5)
    result = traded(latency, lambda model: 0.0, 0.13, model, rounds=2, selection=chosen)
    assert [row.filters.get("projection") for row in result.history] == [None, 32, 16]
    with pytest.raises(PruneError, match="latency_ms=16"):
        traded(latency, lambda model: 0.0, 0.1, model, selection=chosen)


def test_times_that_no_removal_changes_are_said() -> None:
    """All at their floors would be quicker, and no step on the way there is."""
    whole = nets.lite().count_params()

    def latency(model: keras.Model) -> float:
        return 1.0 if model.count_params() < 0.2 * whole else 2.0

    with pytest.raises(PruneError, match="a removal that saves time"):
        traded(latency, lambda model: 0.0, 0.9)


@pytest.mark.parametrize("wrong", [float("nan"), None, "low"])
def test_a_loss_that_is_no_number_is_refused(wrong: Any) -> None:
    with pytest.raises(PruneError, match="loss gave no"):
        traded(by_width(head=1.0), lambda model: wrong, 0.7)


def test_statistics_are_shifted_where_blocks_are_gone() -> None:
    """On all images: what reads the sum has the statistics of its new input."""
    whole = randomize(nets.lite())
    batches = [IMAGES[:4], IMAGES[4:]]
    loss = by_width(b_expand=1.0, c_expand=-1.0)
    result = traded(blockwise, loss, 0.7, whole, calibration=batches)
    plain = traded(blockwise, loss, 0.7, whole).model
    unshifted = remove_filters(plain, plan(plain, {}))
    Reference(whole, batches).shift(unshifted, plan(unshifted, {}))
    for name in ("c_expand_bn", "head_bn"):
        found, expected, before = (
            model.get_layer(name).moving_mean.numpy() for model in (result.model, unshifted, plain)
        )
        np.testing.assert_array_equal(found, expected)
        assert np.abs(found - before).max() > 1e-3


def test_a_few_images_are_whole_batches() -> None:
    whole = randomize(nets.lite())
    model, few = (remove_filters(whole, plan(whole, {"head": [0]})) for _ in range(2))
    batches = [IMAGES[:4], IMAGES[4:6], IMAGES[6:]]
    made = plan(whole, {"head": [0]})
    Reference(whole, batches).shift(model, made, images=5)
    Reference(whole, batches[:2]).shift(few, made)
    for ours, theirs in zip(model.weights, few.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


POINTS = st.lists(
    st.tuples(st.floats(-1, 10).map(lambda x: round(x, 3)), st.floats(-5, 5)), max_size=8
)


@given(points=POINTS)
def test_the_hull_lies_below_all_points(points: list[tuple[float, float]]) -> None:
    steps = [(*point, _Step(str(number), 1)) for number, point in enumerate(points)]
    edges = _hull(steps)
    slopes = [slope for _, slope, _ in edges]
    assert all(first <= second + 1e-9 for first, second in pairwise(slopes))
    corners = [(0.0, 0.0), *((saved, loss) for saved, loss, _ in _summed(edges))]
    useful = [point for point in points if point[0] > 0]
    assert bool(edges) == bool(useful)
    for saved, loss in useful:
        assert saved <= corners[-1][0] + 1e-9
        line = np.interp(saved, *zip(*corners, strict=True))
        assert loss >= line - 1e-6 * (1 + abs(loss))
    for saved, loss, step in _summed(edges):
        np.testing.assert_allclose((saved, loss), points[int(step.name)], rtol=1e-6, atol=1e-6)
