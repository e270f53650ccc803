from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpipe.data import SPLITS, Manifest, split
from kpipe.data.manifest import problem_table
from kpipe.data.splitting import _rounded
from kpipe.errors import DataError

Listed = Callable[..., Manifest]


def _sha(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def _rows(declared: str = "", **counts: int) -> list[tuple[str, str, str]]:
    return [
        (_sha((label, declared, place)), label, declared)
        for label, count in counts.items()
        for place in range(count)
    ]


def _by_file(manifest: Manifest) -> dict[str, str]:
    return dict(zip(manifest.table["sha256"], manifest.table["split"], strict=True))


def test_each_class_is_split_by_largest_remainder(listed: Listed) -> None:
    counts = split(listed(_rows(a=100, b=11, c=7))).counts()
    # 11: 7.7, 1.65, 1.65; 7: 4.9, 1.05, 1.05
    assert counts.to_numpy().tolist() == [[70, 15, 15], [8, 2, 1], [5, 1, 1]]


@given(
    st.lists(st.floats(0.01, 1), min_size=2, max_size=4),
    st.integers(4, 500),
)
@settings(max_examples=50, deadline=None)
def test_rounding_sums_up_and_moves_less_than_one(wanted: list[float], total: int) -> None:
    weights = np.array(wanted)
    counts = _rounded(weights, total, np.zeros(len(weights), bool))
    assert counts.sum() == total
    assert (abs(counts - weights * total / weights.sum()) < 1).all()
    needed = _rounded(weights, total, np.ones(len(weights), bool))
    assert needed.sum() == total
    assert needed.min() >= 1


def test_a_small_class_is_in_every_split(listed: Listed) -> None:
    assert split(listed(_rows(a=50, b=3))).counts().loc["b"].tolist() == [1, 1, 1]


def test_the_split_is_a_function_of_content_alone(listed: Listed) -> None:
    rows = _rows(a=40, b=20)
    first = split(listed(rows), seed=3)
    order = np.random.default_rng(0).permutation(len(rows))
    second = split(listed([rows[place] for place in order]), seed=3)
    assert _by_file(first) == _by_file(second)
    assert first.digest == second.digest


def test_another_seed_is_another_split_of_the_same_sizes(listed: Listed) -> None:
    manifest = listed(_rows(a=40, b=20))
    one, other = split(manifest, seed=1), split(manifest, seed=2)
    assert _by_file(one) != _by_file(other)
    pd.testing.assert_frame_equal(one.counts(), other.counts())


def test_the_manifest_given_is_left_as_it_was(listed: Listed) -> None:
    manifest = listed(_rows(a=10, b=10))
    before = manifest.table.copy()
    split(manifest)
    pd.testing.assert_frame_equal(manifest.table, before)


def test_identical_files_stay_together_across_labels_too(listed: Listed) -> None:
    rows = _rows(a=40, b=40)
    copies = [(sha, "b" if label == "a" else "a", "") for sha, label, _ in rows[::4]]
    table = split(listed(rows + copies + rows[::5])).table
    assert (table.groupby("sha256")["split"].nunique() == 1).all()


def test_groups_stay_together_and_empty_ones_group_nothing(listed: Listed) -> None:
    rows = _rows(a=60, b=60)
    patients = [f"patient {place % 20}" if place % 3 else "" for place in range(120)]
    made = split(listed(rows, patient=patients), group="patient")
    named = made.table[made.table["patient"] != ""]
    assert (named.groupby("patient")["split"].nunique() == 1).all()
    assert made.table[made.table["patient"] == ""]["split"].nunique() == 3
    shares = made.counts().sum() / 120
    np.testing.assert_allclose(shares, [0.7, 0.15, 0.15], atol=0.05)


def test_an_unknown_group_column_gets_the_nearest_name(listed: Listed) -> None:
    with pytest.raises(DataError, match="did you mean 'patient'"):
        split(listed(_rows(a=9, b=9), patient=["x"] * 18), group="patients")


def test_declared_splits_are_kept(listed: Listed) -> None:
    rows = _rows("train", a=5, b=5) + _rows("validation", a=3, b=2) + _rows("test", a=4, b=4)
    made = split(listed(rows))
    assert _by_file(made) == {sha: name for sha, _, name in rows}
    assert made.problems.empty


def test_a_split_that_is_not_declared_is_cut_from_train_and_said(listed: Listed) -> None:
    rows = _rows("train", a=85, b=17) + _rows("test", a=15, b=6)
    made = split(listed(rows))
    assert made.counts().loc["a"].tolist() == [70, 15, 15]
    before = {sha for sha, _, name in rows if name == "test"}
    assert {sha for sha, name in _by_file(made).items() if name == "test"} == before
    assert made.problems["detail"].tolist() == ["validation is cut from train, of 102"]


def test_photos_without_a_split_fill_up_the_declared_ones(listed: Listed) -> None:
    rows = _rows("train", a=7) + _rows("test", a=3) + _rows(a=10, b=20)
    made = split(listed(rows))
    assert made.counts().to_numpy().tolist() == [[14, 3, 3], [14, 3, 3]]
    kept = {sha: name for sha, _, name in rows if name}
    assert kept.items() <= _by_file(made).items()
    assert made.problems["detail"].tolist() == ["30 photos without a split are shared out"]


def test_a_copy_of_a_declared_photo_joins_its_split(listed: Listed) -> None:
    rows = _rows("test", a=9, b=9) + _rows(a=30, b=30)
    copies = [(sha, label, "") for sha, label, name in rows if name]
    made = split(listed(rows + copies))
    assert (made.table.groupby("sha256")["split"].nunique() == 1).all()


def test_copies_across_declared_splits_are_set_aside_from_the_earlier(listed: Listed) -> None:
    rows = _rows("train", a=5, b=5) + _rows("validation", a=5, b=5) + _rows("test", a=5, b=5)
    leak = [(rows[-1][0], "b", "train"), (rows[-2][0], "b", "validation")]
    made = split(listed(rows + leak))
    assert _by_file(made) == {sha: name for sha, _, name in rows}
    assert made.problems["kind"].tolist() == ["copy in another split"] * 2
    assert made.problems["detail"].tolist() == [
        "set aside from train, kept in test",
        "set aside from validation, kept in test",
    ]


def test_groups_that_cross_declared_splits_are_named(listed: Listed) -> None:
    rows = _rows("train", a=4, b=4) + _rows("validation", a=2, b=2) + _rows("test", a=2, b=2)
    patients = ["torn", *[f"p{place}" for place in range(14)], "torn"]
    with pytest.raises(DataError, match="'patient' cross the declared splits") as caught:
        split(listed(rows, patient=patients), group="patient")
    assert caught.value.received == "'torn'"


def test_groups_that_cross_are_named_though_train_is_to_be_cut(listed: Listed) -> None:
    rows = _rows("train", a=8, b=8) + _rows("test", a=2, b=2)
    patients = ["torn", *[f"p{place}" for place in range(18)], "torn"]
    with pytest.raises(DataError, match="1 groups of column 'patient' cross"):
        split(listed(rows, patient=patients), group="patient")


def test_a_share_of_nothing_gets_nothing(listed: Listed) -> None:
    counts = split(listed(_rows(a=10, b=2)), (0.8, 0.2, 0)).counts()
    assert counts.to_numpy().tolist() == [[8, 2, 0], [1, 1, 0]]


def test_classes_too_small_are_named_with_their_counts(listed: Listed) -> None:
    rows = [*_rows(a=20, b=2, d=20), *[(_sha("same"), "c", "")] * 5]
    with pytest.raises(DataError, match="too small") as caught:
        split(listed(rows))
    assert caught.value.received.count("train") == 2
    assert "'b': train 1, validation 1, test 0" in caught.value.received
    assert "'c': train 5, validation 0, test 0" in caught.value.received


@pytest.mark.parametrize(
    "fractions", [(0.7, 0.3), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (0, 0.5, 0.5)]
)
def test_bad_fractions_are_refused(fractions: tuple, listed: Listed) -> None:
    with pytest.raises(DataError, match="fractions of a split are wrong"):
        split(listed(_rows(a=9, b=9)), fractions)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ab")), max_size=60),
    st.integers(0, 5),
)
@settings(max_examples=30, deadline=None)
def test_whatever_the_copies_no_photo_is_lost_or_torn(
    drawn: list[tuple[int, str]], seed: int
) -> None:
    rows = _rows(a=9, b=9) + [(_sha(number), label, "") for number, label in drawn]
    table = pd.DataFrame(rows, columns=["sha256", "label", "split"])
    table = table.assign(path=[str(place) for place in range(len(table))], width=1, height=1)
    made = split(Manifest(table, ("a", "b"), problem_table()), seed=seed).table
    assert sorted(made["path"]) == sorted(table["path"])
    assert set(made["split"]) == set(SPLITS)
    assert (made.groupby("sha256")["split"].nunique() == 1).all()
