from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpipe.data import Sampling
from kpipe.errors import DataError

METHODS = ["oversample", "undersample", "augment_minority"]
UNEVEN = np.repeat([0, 1, 2], [20, 7, 3])

quick = settings(max_examples=40, deadline=None)
counts = st.lists(st.integers(1, 40), min_size=1, max_size=5)
samplings = st.builds(Sampling, st.sampled_from(METHODS), st.floats(0.05, 1.0) | st.just(1))


def shuffled(counts: list[int], seed: int = 0) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels)


@pytest.mark.parametrize(
    ("method", "ratio", "expected"),
    [
        ("oversample", 1.0, [20, 20, 20]),
        ("oversample", 0.5, [20, 10, 10]),
        ("oversample", 0.3, [20, 7, 6]),
        ("oversample", 0.01, [20, 7, 3]),
        ("augment_minority", 0.5, [20, 10, 10]),
        ("undersample", 1.0, [3, 3, 3]),
        ("undersample", 0.5, [6, 6, 3]),
        ("undersample", 0.3, [10, 7, 3]),
        ("undersample", 1e-300, [20, 7, 3]),
    ],
)
def test_targets_by_hand(method: str, ratio: float, expected: list[int]) -> None:
    assert Sampling(method, ratio).targets(UNEVEN) == dict(enumerate(expected))


@pytest.mark.parametrize(("ratio", "count"), [(0.55, 55), (0.07, 7), (0.29, 29), (0.57, 57)])
def test_a_ratio_means_what_is_written(ratio: float, count: int) -> None:
    assert ratio * 100 != count
    labels = np.repeat([0, 1], [100, 1])
    assert Sampling("oversample", ratio).targets(labels) == {0: 100, 1: count}
    labels = np.repeat([0, 1], [1000, count])
    assert Sampling("undersample", ratio).targets(labels) == {0: 100, 1: count}


@quick
@given(counts=counts, sampling=samplings)
def test_the_smallest_class_reaches_its_share_of_the_largest(counts, sampling) -> None:
    targets = sampling.targets(shuffled(counts))
    reached, ratio = list(targets.values()), Fraction(str(sampling.ratio))
    assert min(reached) >= ratio * max(reached)
    if sampling.method == "undersample":
        assert all(target <= count for target, count in zip(reached, counts, strict=True))
        assert min(reached) == min(counts)
    else:
        assert all(target >= count for target, count in zip(reached, counts, strict=True))
        assert max(reached) == max(counts)


# Draws


@quick
@given(
    counts=counts, sampling=samplings, seed=st.integers(-(2**63), 2**63), epoch=st.integers(0, 500)
)
def test_every_epoch_meets_the_targets_exactly(counts, sampling, seed: int, epoch: int) -> None:
    labels = shuffled(counts)
    positions, copies = sampling.draw(labels, seed, epoch)
    assert positions.dtype == copies.dtype == np.int64
    drawn = np.bincount(labels[positions], minlength=len(counts))
    assert dict(enumerate(drawn.tolist())) == sampling.targets(labels)
    times = np.bincount(positions, minlength=len(labels))
    for index, (target, count) in enumerate(zip(drawn, counts, strict=True)):
        of_class = times[labels == index]
        assert of_class.min() >= target // count
        assert of_class.max() <= -(-target // count)
    assert (np.diff(positions) >= 0).all()
    expected = [number for repeats in times for number in range(repeats)]
    np.testing.assert_array_equal(copies, expected)


@quick
@given(counts=counts, sampling=samplings, epoch=st.integers(0, 50))
def test_draws_are_a_function_of_seed_and_epoch(counts, sampling, epoch: int) -> None:
    labels = shuffled(counts)
    for one, other in zip(
        sampling.draw(labels, 5, epoch), sampling.draw(labels, 5, epoch), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_seeds_and_epochs_draw_otherwise() -> None:
    draws = {
        Sampling("undersample").draw(UNEVEN, seed, epoch)[0].tobytes()
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(draws) == 25


@quick
@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    sampling=samplings,
    seed=st.integers(0, 9),
)
def test_no_photo_has_a_second_turn_before_all_had_one(counts, sampling, seed: int) -> None:
    labels = shuffled(counts)
    for index, target in sampling.targets(labels).items():
        places = np.flatnonzero(labels == index)
        every, further = divmod(target, len(places))
        if not further:
            continue
        turns = -(-len(places) // further)
        extra = np.zeros(len(labels), int)
        for epoch in range(2 * turns, 3 * turns):  # the third cycle
            assert extra[places].max() <= 1
            positions, _ = sampling.draw(labels, seed, epoch)
            extra += np.bincount(positions, minlength=len(labels))
            extra[places] -= every
        assert extra[places].min() == 1


def test_undersampling_shows_every_photo_over_the_epochs() -> None:
    sampling = Sampling("undersample")
    seen = {place for epoch in range(7) for place in sampling.draw(UNEVEN, 0, epoch)[0].tolist()}
    assert seen == set(range(30))  # 20 photos, 3 an epoch: 7 epochs
    assert np.bincount(sampling.draw(UNEVEN, 0, 6)[0]).max() == 1


def test_the_repeats_alone_are_augmented_of_the_minority() -> None:
    copies = np.array([0, 0, 1, 2, 0])
    assert Sampling("augment_minority").augments(copies).tolist() == [0, 0, 1, 1, 0]
    for method in ("oversample", "undersample"):
        assert Sampling(method).augments(copies).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"method": "oversampel"}, "did you mean 'oversample'"),
        ({"method": "oversample", "ratio": 0}, "ratio=0 "),
        ({"method": "oversample", "ratio": 1.01}, "ratio"),
        ({"method": "oversample", "ratio": float("nan")}, "ratio"),
    ],
)
def test_a_wrong_sampling_is_refused(wrong: dict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Sampling(**wrong)


def test_a_class_without_a_photo_cannot_be_sampled() -> None:
    with pytest.raises(DataError, match="no label of class 1"):
        Sampling("oversample").draw([0, 2], 0, 0)
