"""Selection meets the target, with the lowest scores, in multiples, above the floors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpipe.errors import PruneError
from kpipe.prune.criteria import Ranking
from kpipe.prune.graph import read
from kpipe.prune.groups import Coupling, couple
from kpipe.prune.macs import terms
from kpipe.prune.selection import floors, least_macs, select
from kpipe.prune.surgery import plan_units
from tests.prune import nets


@pytest.fixture(scope="module")
def coupling() -> Coupling:
    return couple(read(nets.lite()))


def cost(coupling: Coupling) -> int:
    return sum(term.macs(coupling.graph.channels) for term in terms(coupling.graph))


def scored(coupling: Coupling, seed: int) -> dict[str, Ranking]:
    draws = np.random.default_rng(seed)
    return {g.name: Ranking(g, draws.random(len(g.units))) for g in coupling.groups}


def test_floors_are_rounded_up_to_the_multiple(coupling: Coupling) -> None:
    sizes = {group.name: len(group.units) for group in coupling.groups}
    expected = {"stem": 8, "a_expand": 24, "a_project": 16, "b_expand": 48, "c_expand": 48}
    assert sizes == expected | {"head": 32}
    least = floors(coupling.groups, 0.3, 8)
    expected = {"stem": 8, "a_expand": 8, "a_project": 8, "b_expand": 16, "c_expand": 16}
    assert least == expected | {"head": 16}
    assert set(floors(coupling.groups, 0.0, 1).values()) == {1}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.floats(0.3, 0.99), st.sampled_from([1, 4, 8]))
def test_the_target_is_met_and_no_lower_score_is_left(
    coupling: Coupling, seed: int, share: float, multiple: int
) -> None:
    rankings = scored(coupling, seed)
    least = floors(coupling.groups, 0.1, multiple)
    whole = cost(coupling)
    target = max(int(share * whole), least_macs(coupling, least))
    removed = select(coupling, rankings, target, least, multiple)
    after = plan_units(coupling, removed).macs_after
    assert after is not None and after <= target
    assert not (removed & coupling.frozen).any()
    for name, ranking in rankings.items():
        gone = removed[ranking.group.units]
        left = int((~gone).sum())
        assert left >= least[name]
        assert left % multiple == 0 or left == len(gone)
        if gone.any():
            assert ranking.scores[gone].max() <= ranking.scores[~gone].min()


def test_blocks_go_in_the_order_of_their_mean_score(coupling: Coupling) -> None:
    rankings = scored(coupling, 0)
    high = {name: Ranking(r.group, r.scores + 10) for name, r in rankings.items()}
    rankings = high | {"b_expand": rankings["b_expand"]}
    least = floors(coupling.groups, 0.1, 8)
    whole = cost(coupling)
    removed = select(coupling, rankings, int(0.95 * whole), least, 8)
    kept = plan_units(coupling, removed).kept
    names = {"expand", "expand_bn", "expand_relu", "pad", "dw", "dw_bn", "dw_relu"}
    assert set(kept) == {f"b_{name}" for name in names}
    fewest = select(coupling, rankings, whole - 1, least, 8)
    assert fewest.sum() == 8


def test_a_target_below_the_floors_is_refused(coupling: Coupling) -> None:
    least = floors(coupling.groups, 0.1, 8)
    with pytest.raises(PruneError, match="cannot be cut to 1 "):
        select(coupling, scored(coupling, 0), 1, least, 8)
