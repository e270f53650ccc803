from __future__ import annotations

import numpy as np
import pytest

from kpipe.data.near_duplicates.candidates import candidates


def near_hashes(count: int, flipped: int) -> np.ndarray:
    """Random hashes, each followed by one that differs in `flipped` bits."""
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**63, count).astype(np.uint64)
    bits = [generator.choice(64, flipped, replace=False) for _ in hashes]
    masks = [sum(1 << int(bit) for bit in chosen) for chosen in bits]
    return np.stack([hashes, hashes ^ np.array(masks, np.uint64)], 1).ravel()


def as_set(pairs: tuple[np.ndarray, np.ndarray]) -> set[frozenset[int]]:
    return {frozenset(pair) for pair in zip(*map(np.ndarray.tolist, pairs), strict=True)}


def apart(hashes: np.ndarray) -> dict[frozenset[int], int]:
    return {
        frozenset((one, two)): int(hashes[one] ^ hashes[two]).bit_count()
        for one in range(len(hashes))
        for two in range(one)
    }


@pytest.mark.parametrize("count", [0, 1, 40, 400])
def test_every_pair_of_hashes_that_are_close_is_a_candidate(count: int) -> None:
    hashes = near_hashes(count, 7)
    expected = {pair for pair, bits in apart(hashes).items() if bits <= 18}
    assert as_set(candidates(hashes)) == expected and len(expected) >= count


def test_photos_that_share_a_hash_are_compared_with_each_other_and_with_what_is_close() -> None:
    hashes = np.array([9, 9, 9, 11, 11, 2**60 - 1], np.uint64)
    expected = {pair for pair, bits in apart(hashes).items() if bits <= 18}
    assert as_set(candidates(hashes)) == expected
    one, two = candidates(hashes)
    assert len(one) == len(expected) and (one != two).all()


def test_of_too_many_pairs_the_closest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = near_hashes(300, 2)
    monkeypatch.setattr("kpipe.data.near_duplicates.candidates._PAIRS", 0)
    monkeypatch.setattr("kpipe.data.near_duplicates.candidates._PAIRS_EACH", 1)
    found = as_set(candidates(hashes))
    bits = apart(hashes)
    farthest = max(bits[pair] for pair in found)
    assert 300 <= len(found) <= 600
    assert found == {pair for pair in bits if bits[pair] <= farthest}


def test_very_many_equal_hashes_cost_no_more_than_some_neighbors_each() -> None:
    one, two = candidates(np.full(5000, 77, np.uint64))
    assert len(one) < 32 * 5000
    linked = set(zip(one.tolist(), two.tolist(), strict=True))
    assert all((place, place + 1) in linked for place in range(4999))
