"""The removals that add the least loss per millisecond are made; costs here are arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from kpipe.errors import PruneError
from kpipe.prune import PruneResult, Selection, prune_filters, rank, residual_blocks
from kpipe.prune.graph.graph_reading import read
from kpipe.prune.loop.latency_search import _chain, _Proposal, _Trial
from kpipe.prune.surgery.batch_norm_statistics import ReferenceStatistics
from kpipe.prune.surgery.planning import plan, remove_filters
from kpipe.prune.surgery.weight_refitting import refit
from tests.prune import nets
from tests.prune.masking import randomize

IMAGES = np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 3)).astype("float32")
Cost = Callable[[keras.Model], float]


def by_width(**costs: float) -> Cost:
    """A cost for every filter of the named layers; a missing layer costs nothing."""

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


@pytest.mark.slow
def test_what_adds_least_loss_for_each_millisecond_goes() -> None:
    """Both save as much; the loss asks for one of them, and then for the other."""
    latency = by_width(a_expand=1.0, head=0.75)
    for cheap, dear in (("a_expand", "head"), ("head", "a_expand")):
        loss = by_width(**{cheap: -0.1, dear: -1.0})
        assert set(widths(traded(latency, loss, 0.85))) == {cheap}


@pytest.mark.slow
def test_what_saves_no_time_stays() -> None:
    """48 filters, then 32, then 16; other groups cost nothing and stay whole."""
    chosen = Selection(min_filters_fraction=0, blocks=False)
    result = traded(by_width(b_expand=1.0), lambda model: 0.0, 0.5, selection=chosen)
    assert widths(result) == {"b_expand": (48, 16)}


@pytest.mark.slow
def test_widths_are_the_multiple_times_a_power_of_two() -> None:
    chosen = Selection(round_to=6, min_filters_fraction=0, blocks=False)
    result = traded(by_width(b_expand=1.0), lambda model: 0.0, 0.9, selection=chosen)
    assert widths(result) == {"b_expand": (48, 24)}


def test_the_floor_is_the_last_width() -> None:
    chosen = Selection(min_filters_fraction=0.8, blocks=False)
    result = traded(by_width(b_expand=1.0), lambda model: 0.0, 0.9, selection=chosen)
    assert widths(result) == {"b_expand": (48, 40)}


def blockwise(model: keras.Model) -> float:
    """A block costs the same however narrow it is, as where a launch is what takes time."""
    return float(sum(layer.name.endswith("_dw") for layer in model.layers))


@pytest.mark.slow
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
        {"ignored_layers": ("b_dw", "c_project")},
        {"ignored_layers": ("b_add", "c_add")},
        {"max_pruning_ratio": {"b_expand": 0.9, "c_expand": 0.5}},
    ],
)
def test_blocks_stay_where_they_are_held(held: dict[str, Any]) -> None:
    with pytest.raises(PruneError, match="cannot be pruned to latency_ms"):
        traded(blockwise, lambda model: 0.0, 0.7, selection=Selection(**held))


@pytest.mark.slow
def test_a_narrow_block_goes_after_its_filters() -> None:
    """Narrowed at first, because that adds nothing; gone where narrow is not enough."""

    def latency(model: keras.Model) -> float:
        return by_width(b_expand=0.1)(model) + blockwise(model)

    def loss(model: keras.Model) -> float:
        return 0.0 if any(layer.name == "b_dw" for layer in model.layers) else 1.0

    chosen = Selection(ignored_layers=("c_dw",))
    assert widths(traded(latency, loss, 0.9, selection=chosen)) == {"b_expand": (48, 32)}
    assert widths(traded(latency, loss, 0.4, selection=chosen)) == {"b_expand": (48, 0)}


@pytest.mark.slow
def test_a_step_stays_where_a_later_one_is_enough_alone() -> None:
    """The head adds less for each millisecond, and saves too little to be of use."""
    latency = by_width(a_expand=1.0, head=0.1)
    loss = by_width(a_expand=-1.0, head=-0.01)
    assert widths(traded(latency, loss, 0.9)) == {"a_expand": (24, 16)}


@pytest.mark.slow
def test_it_goes_on_where_one_step_of_each_is_not_enough() -> None:
    latency = by_width(a_expand=1.0, b_expand=1.0, c_expand=1.0, head=1.0)
    chosen = Selection(min_filters_fraction=0, blocks=False)
    result = traded(latency, lambda model: 0.0, 0.25, selection=chosen)
    assert latency(result.model) <= 0.25 * latency(nets.lite())


@pytest.mark.slow
def test_progress_counts_the_trials_of_each_pass() -> None:
    """Three groups of a block each and the head, and the two blocks with a shortcut."""
    told: list[tuple[int, int]] = []
    chosen = Selection(ignored_layers=("stem", "a_project"))
    latency = by_width(head=1.0)
    traded(
        latency,
        lambda model: 0.0,
        0.9,
        selection=chosen,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 6) for done in range(1, 7)]


@pytest.mark.slow
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

    chosen = Selection(min_filters_fraction=0.5)
    result = traded(latency, lambda model: 0.0, 0.13, model, rounds=2, selection=chosen)
    assert [row.filters.get("projection") for row in result.history] == [None, 32, 16]
    with pytest.raises(PruneError, match="latency_ms=16"):
        traded(latency, lambda model: 0.0, 0.1, model, selection=chosen)


def test_times_that_no_removal_changes_are_reported() -> None:
    """All at their floors would be quicker, and no step on the way there is."""
    whole = nets.lite().count_params()

    def latency(model: keras.Model) -> float:
        return 1.0 if model.count_params() < 0.2 * whole else 2.0

    with pytest.raises(PruneError, match="a removal that saves time"):
        traded(latency, lambda model: 0.0, 0.9)


@pytest.mark.parametrize("wrong", [float("nan"), None, "low"])
def test_a_loss_that_is_not_a_finite_number_is_refused(wrong: Any) -> None:
    with pytest.raises(PruneError, match="loss did not return a"):
        traded(by_width(head=1.0), lambda model: wrong, 0.7)


@pytest.mark.slow
def test_what_is_left_is_shifted_and_refitted_where_blocks_are_gone() -> None:
    """On all images: what reads the sum has the statistics and the weights of its new input."""
    whole = randomize(nets.lite())
    batches = [IMAGES[:4], IMAGES[4:]]
    loss = by_width(b_expand=1.0, c_expand=-1.0)
    result = traded(blockwise, loss, 0.7, whole, calibration=batches)
    plain = traded(blockwise, loss, 0.7, whole).model
    by_hand = remove_filters(plain, plan(plain, {}))
    refit(whole, read(whole), by_hand, plan(by_hand, {}), batches)
    for name, weight in {
        "c_expand": "kernel",
        "c_expand_bn": "moving_mean",
        "head_bn": "moving_mean",
    }.items():
        found, expected, before = (
            getattr(model.get_layer(name), weight).numpy()
            for model in (result.model, by_hand, plain)
        )
        np.testing.assert_array_equal(found, expected)
        assert np.abs(found - before).max() > 1e-5


def test_a_few_images_are_whole_batches() -> None:
    whole = randomize(nets.lite())
    model, few = (remove_filters(whole, plan(whole, {"head": [0]})) for _ in range(2))
    batches = [IMAGES[:4], IMAGES[4:6], IMAGES[6:]]
    made = plan(whole, {"head": [0]})
    ReferenceStatistics(whole, read(whole), batches).shift(model, made, images=5)
    ReferenceStatistics(whole, read(whole), batches[:2]).shift(few, made)
    for ours, theirs in zip(model.weights, few.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def with_branch(branch: Callable[[Any], Any]) -> keras.Model:
    """stem -> (a shortcut + the branch) -> head."""
    inputs = nets.image()
    x = nets.conv(inputs, 16, "stem")
    x = layers.Add(name="sum")([x, branch(x)])
    return randomize(nets.classifier(inputs, nets.conv(x, 32, "head")))


def layer_count(model: keras.Model) -> float:
    return float(len(model.layers))


def free(model: keras.Model) -> float:
    return 0.0


def test_filters_that_only_a_branch_protected_are_free_without_it() -> None:
    """What reads the stem in the branch has no channels to lose, until it goes."""

    def branch(x: Any) -> Any:
        y = layers.Dense(16, name="dense")(layers.LayerNormalization(name="norm")(x))
        return layers.Conv2D(16, 1, name="last")(y)

    latency = by_width(last=10.0, stem=1.0)
    result = traded(latency, free, 0.05, with_branch(branch), rounds=2)
    assert "stem" not in result.history[0].filters
    assert result.history[-1].filters["stem"] == 8
    assert "last" not in {layer.name for layer in result.model.layers}


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"min_filters_fraction": 0.9}, 16),
        ({"max_pruning_ratio": {"stem": 0.5}}, 8),
        ({"max_pruning_ratio": {"stem#2": 0.0}}, 16),
    ],
)
def test_limits_hold_where_groups_are_joined(limits: dict[str, Any], left: int) -> None:
    """The branch tells 4 channels of the stem from 12, and without it nothing does."""

    def branch(x: Any) -> Any:
        parts = [layers.Conv2D(n, 3, padding="same", name=f"part{n}")(x) for n in (4, 12)]
        return layers.Concatenate(name="parts")(parts)

    def latency(model: keras.Model) -> float:
        gone = not any(layer.name == "part4" for layer in model.layers)
        return by_width(stem=1.0)(model) + (0 if gone else 100)

    model, chosen = with_branch(branch), Selection(round_to=4, **limits)
    assert {"stem", "stem#2"} <= rank(model).keys()
    result = traded(latency, free, (left + 0.5) / latency(model), model, rounds=2, selection=chosen)
    assert result.model.get_layer("stem").filters == left
    with pytest.raises(PruneError, match="cannot be pruned to latency_ms"):
        traded(latency, free, (left - 0.5) / latency(model), model, selection=chosen)


@pytest.mark.slow
def test_a_round_whose_limit_is_met_removes_nothing() -> None:
    def latency(model: keras.Model) -> float:
        return 10.0 if any(layer.name == "b_dw" for layer in model.layers) else 4.0

    result = traded(latency, free, 0.5, rounds=2)
    assert result.history[1].latency_ms == result.history[2].latency_ms == 4.0
    assert result.history[1].filters == result.history[2].filters


def test_layers_of_several_calls_hold_a_block() -> None:
    twice = layers.Conv2D(16, 3, padding="same", activation="relu", name="twice")
    model = with_branch(lambda x: layers.Conv2D(16, 1, name="last")(twice(twice(x))))
    gone = traded(layer_count, free, 0.8, model).model
    assert "twice" not in {layer.name for layer in gone.layers}
    with pytest.raises(PruneError, match="cannot be pruned to latency_ms"):
        traded(layer_count, free, 0.8, model, selection=Selection(ignored_layers=("twice",)))


def test_a_block_stays_that_shares_a_layer_with_what_stays() -> None:
    """The statistics of one call cannot be told from those of two."""
    norm = layers.BatchNormalization(name="norm")
    inputs = nets.image()
    x = layers.Conv2D(16, 3, padding="same", name="stem")(inputs)
    x = layers.Add(name="sum")([x, layers.Conv2D(16, 1, name="last")(norm(x))])
    model = randomize(nets.classifier(inputs, nets.conv(norm(x), 32, "head")))
    assert residual_blocks(model)
    with pytest.raises(PruneError, match="cannot be pruned to latency_ms"):
        traded(layer_count, free, 0.9, model, calibration=[IMAGES])


@pytest.mark.parametrize("score", [False, True])
def test_steps_that_add_nothing_all_go_before_the_block(score: bool) -> None:
    model = with_branch(
        lambda x: layers.Conv2D(16, 1, name="c")(nets.conv(nets.conv(x, 32, "a"), 32, "b"))
    )

    def loss(model: keras.Model) -> float:
        return 0.0 if any(layer.name == "c" for layer in model.layers) else 1.0

    latency, scored = by_width(a=1.0, b=1.0), {"evaluate": lambda model: -loss(model)}
    result = traded(latency, None if score else loss, 0.5, model, **scored)
    assert widths(result) == {"a": (32, 16), "b": (32, 16)}


def test_of_blocks_inside_each_other_the_cheaper_goes_first() -> None:
    def branch(x: Any) -> Any:
        x = nets.conv(x, 16, "outer")
        x = layers.Add(name="inner_sum")([x, nets.conv(x, 16, "inner")])
        return layers.Conv2D(16, 1, name="last")(x)

    def parts(model: keras.Model) -> list[bool]:
        names = {layer.name for layer in model.layers}
        return ["inner" in names, "outer" in names, model.get_layer("head").filters == 32]

    def latency(model: keras.Model) -> float:
        return 1 + float(np.dot(parts(model), (4.0, 1.0, 1.0)))

    def loss(model: keras.Model) -> float:
        return -float(np.dot(parts(model), (0.1, 0.9, 0.3)))

    result = traded(latency, loss, 2.5 / 7, with_branch(branch))
    assert parts(result.model) == [False, True, False]


def test_a_loss_that_falls_puts_nothing_before_what_saves_more() -> None:
    """By loss for each millisecond alone, the stem would gain most."""
    latency = by_width(stem=0.001, head=1.0)
    result = traded(latency, by_width(stem=1.0, head=0.1), 0.7)
    assert widths(result) == {"head": (32, 16)}


@pytest.mark.slow
def test_one_slow_measurement_of_the_whole_decides_nothing() -> None:
    asked = []

    def latency(model: keras.Model) -> float:
        asked.append(model.get_layer("head").filters)
        return asked[-1] * (0.4 if asked.count(32) == 4 and asked[-1] == 32 else 1.0)

    assert widths(traded(latency, free, 0.7)) == {"head": (32, 16)}


EDGES = st.lists(st.tuples(st.floats(0.1, 9), st.sampled_from([0.0, 0.5, 1.0, 2.0])), max_size=6)


@given(inside=EDGES, more=st.floats(0.1, 30), added=st.sampled_from([0.0, 1.0, 3.0, 20.0]))
def test_what_goes_of_a_block_is_best_at_every_price_of_a_millisecond(
    inside: list[tuple[float, float]], more: float, added: float
) -> None:
    """Loss minus price times saved, against all that can go: the cheapest steps, or the block."""
    saved = sum(edge[0] for edge in inside) + more
    steps = [_Trial(ms, ms * slope, _Proposal(str(n), 8)) for n, (ms, slope) in enumerate(inside)]
    chain = _chain(steps, _Trial(saved, added, _Proposal("block", 0)))
    slopes = [edge.added / edge.saved for edge in chain]
    assert slopes == sorted(slopes)
    inside = sorted(inside, key=lambda edge: edge[1])
    sums = [np.array([m, m * slope]) for m, slope in inside]
    able = [sum(sums[:n], np.zeros(2)) for n in range(len(sums) + 1)] + [np.array([saved, added])]
    for price in (0.0, 0.2, 0.7, 1.5, 5.0, 1000.0):
        gone = [edge.proposal for edge in chain if edge.added / edge.saved <= price]
        found = able[-1] if any(not proposal.kept for proposal in gone) else able[len(gone)]
        best = min(loss - price * ms for ms, loss in able)
        assert found[1] - price * found[0] <= best + 1e-6 * (1 + abs(best))
