"""Selection meets the target with the lowest scores, in multiples, above the minimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpipe.errors import PruneError
from kpipe.prune.dependencies.dependency_graph import DependencyGraph, build_dependencies
from kpipe.prune.dependencies.macs import count_macs, count_params
from kpipe.prune.loop.selection import Selection, largest_removal, min_units, select
from kpipe.prune.loop.targets import RemovalCost, Target
from kpipe.prune.ranking.ranking import Ranking
from kpipe.prune.surgery.planning import plan_units
from tests.prune import nets


@pytest.fixture(scope="module")
def dependencies() -> DependencyGraph:
    return build_dependencies(nets.lite())


@pytest.fixture(scope="module")
def cost(dependencies: DependencyGraph) -> RemovalCost:
    return Target("macs", 0.5, None).removal_cost(dependencies)


def minimum(
    dependencies: DependencyGraph, fraction: float, round_to: int, ratios: Any = None
) -> dict[str, int]:
    chosen = Selection(round_to, fraction, max_pruning_ratio=ratios or {})
    return min_units(dependencies.groups, chosen)


def scored(dependencies: DependencyGraph, seed: int) -> dict[str, Ranking]:
    draws = np.random.default_rng(seed)
    return {g.name: Ranking(g, draws.random(len(g.units))) for g in dependencies.groups}


def test_floors_are_rounded_up_to_the_multiple(dependencies: DependencyGraph) -> None:
    sizes = {group.name: len(group.units) for group in dependencies.groups}
    expected = {"stem": 8, "a_expand": 24, "a_project": 16, "b_expand": 48, "c_expand": 48}
    assert sizes == expected | {"head": 32}
    least = minimum(dependencies, 0.3, 8)
    expected = {"stem": 8, "a_expand": 8, "a_project": 8, "b_expand": 16, "c_expand": 16}
    assert least == expected | {"head": 16}
    assert set(minimum(dependencies, 0.0, 1).values()) == {1}


def test_a_ceiling_keeps_more_than_the_floor_does(dependencies: DependencyGraph) -> None:
    least = minimum(dependencies, 0.1, 1, {"head": 0.25, "b_expand": 0.0, "c_expand": 1.0})
    assert (least["head"], least["b_expand"], least["c_expand"]) == (24, 48, 5)
    assert minimum(dependencies, 0.1, 8, {"head": 0.3})["head"] == 24
    with pytest.raises(PruneError, match="did you mean 'head'"):
        minimum(dependencies, 0.1, 1, {"heat": 0.5})


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.floats(0.3, 0.99), st.sampled_from([1, 4, 8]))
def test_the_target_is_met_and_no_lower_score_is_left(
    dependencies: DependencyGraph, cost: RemovalCost, seed: int, share: float, round_to: int
) -> None:
    rankings = scored(dependencies, seed)
    least = minimum(dependencies, 0.1, round_to)
    target = max(share * count_macs(nets.lite()), cost(largest_removal(dependencies, least)))
    removed = select(dependencies, rankings, cost, target, least, round_to)
    after = plan_units(dependencies, removed).macs_after
    assert after is not None and after <= target
    assert not (removed & dependencies.locked).any()
    restored = []
    for name, ranking in rankings.items():
        gone = removed[ranking.group.units]
        left = int((~gone).sum())
        assert left >= least[name]
        assert left % round_to == 0 or left == len(gone)
        if gone.any():
            assert ranking.scores[gone].max() <= ranking.scores[~gone].min()
            fewer = removed.copy()
            last = np.argsort(ranking.scores)[: int(gone.sum())][-round_to:]
            fewer[ranking.group.units[last]] = False
            restored.append(cost(fewer))
    assert max(restored) > target, "nearer by one step"


def test_blocks_go_in_the_order_of_their_mean_score(
    dependencies: DependencyGraph, cost: RemovalCost
) -> None:
    rankings = scored(dependencies, 0)
    high = {name: Ranking(r.group, r.scores + 10) for name, r in rankings.items()}
    rankings = high | {"b_expand": rankings["b_expand"]}
    least = minimum(dependencies, 0.1, 8)
    whole = count_macs(nets.lite())
    removed = select(dependencies, rankings, cost, 0.95 * whole, least, 8)
    kept = plan_units(dependencies, removed).kept
    names = {"expand", "expand_bn", "expand_relu", "pad", "dw", "dw_bn", "dw_relu"}
    assert set(kept) == {f"b_{name}" for name in names}
    fewest = select(dependencies, rankings, cost, whole - 1, least, 8)
    assert fewest.sum() == 8


def test_a_block_stays_where_it_fits_into_what_was_saved_too_much(
    dependencies: DependencyGraph, cost: RemovalCost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, a small chunk and a large one, which is enough alone."""
    rankings = scored(dependencies, 0)
    order = {"b_expand": 0.0, "a_project": 1.0}
    ranks = {n: Ranking(r.group, r.scores + order.get(n, 9)) for n, r in rankings.items()}
    least = minimum(dependencies, 0.1, 8)
    whole = count_macs(nets.lite())
    small, large = (
        whole - cost(select(dependencies, {n: ranks[n]}, cost, whole - 1, least, 8)) for n in order
    )
    assert small < large
    one = select(dependencies, ranks, cost, whole - large, least, 8)
    monkeypatch.setattr("kpipe.prune.loop.selection._MAX_RESTORED", 0)
    both = select(dependencies, ranks, cost, whole - large, least, 8)
    assert set(plan_units(dependencies, both).kept) > set(plan_units(dependencies, one).kept)
    assert cost(one) == whole - large


def test_a_group_without_scores_stays_whole(
    dependencies: DependencyGraph, cost: RemovalCost
) -> None:
    rankings = scored(dependencies, 0)
    del rankings["head"]
    least = minimum(dependencies, 0.1, 8)
    limit = 0.6 * count_macs(nets.lite())
    removed = select(dependencies, rankings, cost, limit, least, 8)
    (head,) = (group for group in dependencies.groups if group.name == "head")
    assert removed.any() and not removed[head.units].any()


def test_the_price_of_parameters_is_what_is_left_of_them(dependencies: DependencyGraph) -> None:
    model = nets.lite()
    of = Target("params", 0.5, None).removal_cost(dependencies)
    least = minimum(dependencies, 0.1, 1)
    removed = largest_removal(dependencies, least)
    assert of(np.zeros_like(removed)) == count_params(model)
    assert of(removed) == plan_units(dependencies, removed).params_after


def test_a_target_below_the_floors_is_refused(
    dependencies: DependencyGraph, cost: RemovalCost
) -> None:
    least = minimum(dependencies, 0.1, 8)
    with pytest.raises(PruneError, match="cannot be pruned to a cost of 1"):
        select(dependencies, scored(dependencies, 0), cost, 1, least, 8)
