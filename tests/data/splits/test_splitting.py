from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpipe.data import SPLITS, Manifest, split
from kpipe.data.manifest import problem_table
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


def _number(key: str, seed: int) -> float:
    """53 bits of sha256 as a number in [0, 1)."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()
    return int(digest[:16], 16) // 2**11 / 2**53


def _kind(manifest: Manifest, kind: str) -> list[str]:
    return manifest.problems["detail"][manifest.problems["kind"] == kind].tolist()


MOVED = "moved to have every class in every split"


def test_the_number_of_the_content_decides(listed: Listed) -> None:
    made = split(listed(_rows(a=100, b=100)), (0.5, 0.2, 0.3), seed=7)
    assert made.problems.empty
    for sha, place in _by_file(made).items():
        u = _number(f"file {sha}", 7)
        assert place == ("train" if u < 0.5 else "validation" if u < 0.7 else "test")


def test_the_number_of_the_group_decides(listed: Listed) -> None:
    patients = [f"patient {place % 40}" for place in range(200)]
    made = split(listed(_rows(a=100, b=100), patient=patients), group="patient")
    for row in made.table.itertuples():
        u = _number(f"group {row.patient}", 0)
        assert row.split == ("train" if u < 0.7 else "validation" if u < 0.85 else "test")


def test_the_shares_of_each_class_are_met_in_expectation(listed: Listed) -> None:
    manifest = listed(_rows(a=400, b=100))
    counts = sum(split(manifest, seed=seed).counts().to_numpy() for seed in range(20))
    for total, found in zip((8000, 2000), counts, strict=True):
        deviation = np.sqrt(total * np.array([0.7 * 0.3, 0.15 * 0.85, 0.15 * 0.85]))
        assert (abs(found - total * np.array([0.7, 0.15, 0.15])) < 4 * deviation).all()


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from("ab"), st.integers(0, 8))),
    st.integers(0, 2**20 - 1),
    st.integers(0, 3),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_photos_that_are_added_move_no_other(
    drawn: list[tuple[int, str, int]], chosen: int, seed: int, grouped: bool
) -> None:
    rows = [(_sha(number), label, "") for number, label, _ in drawn] + _rows(a=12, b=12)
    patients = [f"p{patient}" if patient else "" for *_, patient in drawn] + [""] * 24
    table = pd.DataFrame(rows, columns=["sha256", "label", "split"]).assign(patient=patients)
    table = table.assign(path=[str(place) for place in range(len(table))], width=1, height=1)
    # A copy in a group ties its units: that is a near duplicate across the boundary.
    table = table[~table["sha256"].duplicated()].reset_index(drop=True)
    some = table[[bool(chosen >> place % 20 & 1) or place >= len(drawn) for place in table.index]]
    column = "patient" if grouped else None
    whole, part = (
        split(
            Manifest(rows.reset_index(drop=True), ("a", "b"), problem_table()),
            (0.6, 0.2, 0.2),
            seed,
            column,
        )
        for rows in (table, some)
    )
    moved = {
        path
        for made in (whole, part)
        for path, kind in zip(made.problems["path"], made.problems["kind"], strict=True)
        if kind == MOVED
    }
    places = dict(zip(whole.table["path"], whole.table["split"], strict=True))
    for row in part.table.itertuples():
        assert row.path in moved or places[row.path] == row.split


def test_a_class_without_a_photo_in_a_split_gets_the_nearest_and_it_is_told(
    listed: Listed,
) -> None:
    manifest = listed([*_rows(a=200), *_rows(b=5)])
    for seed in range(10):
        made = split(manifest, seed=seed)
        names = [sha for sha, label, _ in _rows(b=5)]
        u = {sha: _number(f"file {sha}", seed) for sha in names}
        drawn = {sha: sum(number >= np.array([0.7, 0.85])) for sha, number in u.items()}
        found = {sha: SPLITS.index(_by_file(made)[sha]) for sha in names}
        moved = [sha for sha in names if found[sha] != drawn[sha]]
        assert set(found.values()) == {0, 1, 2}
        assert len(_kind(made, MOVED)) == len(moved) == 3 - len(set(drawn.values()))
        lacking = sorted({0, 1, 2} - set(drawn.values()))
        if lacking == [1] or lacking == [2]:
            gap = {
                sha: max((0, 0.7, 0.85)[lacking[0]] - u[sha], u[sha] - (0.7, 0.85, 1)[lacking[0]])
                for sha in names
                if list(drawn.values()).count(drawn[sha]) > 1
            }
            assert moved == [min(gap, key=gap.get)]


def test_a_small_class_is_in_every_split(listed: Listed) -> None:
    made = split(listed(_rows(a=50, b=3)))
    assert made.counts().loc["b"].tolist() == [1, 1, 1]
    assert all("for class 'b'" in detail for detail in _kind(made, MOVED))


def test_a_declared_minimum_fills_the_splits_of_a_small_class_with_its_nearest(
    listed: Listed,
) -> None:
    manifest = listed(_rows(a=60, b=400, c=27))
    for seed in range(2):
        drawn, made = split(manifest, seed=seed), split(manifest, seed=seed, min_photos=9)
        counts = made.counts()
        assert counts.to_numpy().min() >= 9
        assert counts.loc["b"].equals(drawn.counts().loc["b"])
        assert counts.loc["c"].tolist() == [9, 9, 9]
        before, after = _by_file(drawn), _by_file(made)
        moved = {sha for sha in before if before[sha] != after[sha]}
        named = made.problems["kind"] == "moved to have 9 photos of every class in every split"
        paths = dict(zip(made.table["path"], made.table["sha256"], strict=True))
        assert moved <= {paths[path] for path in made.problems["path"][named]}
        # The photos of a that left train for good are those with its largest numbers.
        left = [sha for sha, label, _ in _rows(a=60) if before[sha] == "train" != after[sha]]
        numbers = [_number(f"file {sha}", seed) for sha in left]
        rest = [_number(f"file {sha}", seed) for sha, *_ in _rows(a=60) if after[sha] == "train"]
        assert not left or min(numbers) > max(rest)


@pytest.mark.parametrize("grown", [61, 90])
def test_what_a_minimum_moved_stays_with_previous_and_only_it_moves_back_without(
    listed: Listed, grown: int
) -> None:
    labels = [f"class {number}" for number in range(6)]
    before = split(listed(_rows(**dict.fromkeys(labels, 60))), min_photos=9)
    more = listed(_rows(**dict.fromkeys(labels, grown)))
    kept = _by_file(split(more, min_photos=9, previous=before))
    assert _by_file(before).items() <= kept.items()
    alone = split(more, min_photos=9)
    named = set[str]()
    for made in (before, alone):
        moved = made.problems["path"][made.problems["kind"].str.startswith("moved to have 9")]
        named |= set(made.table["sha256"][made.table["path"].isin(moved)])
    assert {sha for sha, _ in _by_file(before).items() - _by_file(alone).items()} <= named


def test_a_minimum_divides_no_group_and_no_look_alikes(listed: Listed) -> None:
    rows = _rows(a=60, b=60)
    patients = [f"patient {place % 30}" for place in range(120)]
    names = [sha for sha, *_ in rows]
    manifest = _alike(listed(rows, patient=patients), names[:4], names[60:63])
    made = split(manifest, group="patient", min_photos=8)
    assert made.counts().to_numpy().min() >= 8
    assert (made.table.groupby("patient")["split"].nunique() == 1).all()
    assert (made.table.groupby("similar")["split"].nunique() == 1).all()


def test_a_minimum_holds_for_the_splits_that_are_drawn(listed: Listed) -> None:
    rows = _rows("train", a=80, b=40) + _rows("test", a=20, b=3)
    made = split(listed(rows), min_photos=12)
    assert made.counts().loc["b"].tolist() == [28, 12, 3]
    assert {sha for sha, name in _by_file(made).items() if name == "test"} == {
        sha for sha, _, name in rows if name == "test"
    }


def test_classes_too_small_for_a_minimum_are_named_with_their_counts(listed: Listed) -> None:
    with pytest.raises(DataError, match="to have 9 photos in each split") as caught:
        split(listed(_rows(a=60, b=20)), min_photos=9)
    assert caught.value.expected == "at least 9 photos of each class in train, validation, test"
    assert caught.value.received.startswith("'b': train ")
    assert "lower min_photos" in caught.value.fix
    with pytest.raises(DataError, match="invalid minimum of a split"):
        split(listed(_rows(a=60, b=20)), min_photos=0)


def test_a_minimum_that_a_declared_split_need_not_have_is_told_apart(listed: Listed) -> None:
    with pytest.raises(DataError) as caught:
        split(listed(_rows("train", a=80, b=20) + _rows("test", a=20, b=3)), min_photos=12)
    assert caught.value.expected == (
        "at least 12 photos of each class in train, validation; "
        "at least one photo of each class in test"
    )


def test_a_minimum_that_earlier_splits_prevent_says_so(listed: Listed) -> None:
    rows = _rows(a=30, b=30)
    train = listed([(sha, label, "train") for sha, label, _ in rows[:28] + rows[30:58]])
    for minimum, enough in ((6, "have 6 photos in each split"), (2, "have 2 photos")):
        with pytest.raises(DataError, match=f"keep their split of before.*{enough}") as caught:
            split(listed(rows), previous=train, min_photos=minimum)
        assert "'a': train 28, " in caught.value.received
        assert caught.value.received.count("28 keep an earlier split") == 2
        assert "too alike" not in str(caught.value)
    # Each of the ways on that the error names.
    added = listed(
        rows + [(_sha((label, place, "added")), label, "") for label in "ab" for place in range(20)]
    )
    for made in (
        split(listed(rows), previous=train),
        split(listed(rows), min_photos=6),
        split(added, previous=train, min_photos=6),
    ):
        assert (made.counts() > 0).all(axis=None)


def test_a_class_too_small_for_a_minimum_is_no_fault_of_earlier_splits(listed: Listed) -> None:
    rows = listed(_rows(a=60, b=9))
    with pytest.raises(DataError, match="classes too small"):
        split(rows, previous=split(rows), min_photos=6)


def test_photos_set_aside_leave_too_few_for_a_minimum(listed: Listed) -> None:
    declared = _rows("train", a=80, b=30)
    twice = [(sha, label, "test") for sha, label, _ in declared if label == "b"][:28]
    rows = declared + twice + _rows("test", a=20)
    with pytest.raises(DataError, match="has too few photos of a class"):
        split(listed(rows), min_photos=6)


def test_the_split_is_a_function_of_content_alone(listed: Listed) -> None:
    rows = _rows(a=40, b=20)
    first = split(listed(rows), seed=3)
    order = np.random.default_rng(0).permutation(len(rows))
    second = split(listed([rows[place] for place in order]), seed=3)
    assert _by_file(first) == _by_file(second)
    assert first.digest == second.digest


def test_another_seed_is_another_split(listed: Listed) -> None:
    manifest = listed(_rows(a=40, b=20))
    one, other = split(manifest, seed=1), split(manifest, seed=2)
    assert _by_file(one) != _by_file(other)


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
    for sha, place in _by_file(made).items():
        if place != "test":
            train = _number(f"file {sha}", 0) < 0.7 / 0.85
            assert place == ("train" if train else "validation")
    before = {sha for sha, _, name in rows if name == "test"}
    assert {sha for sha, name in _by_file(made).items() if name == "test"} == before
    assert made.problems["detail"].tolist() == ["validation is cut from train, of 102"]


def test_photos_without_a_split_are_shared_out_among_the_declared_ones(listed: Listed) -> None:
    rows = _rows("train", a=7) + _rows("test", a=3) + _rows(a=30, b=30)
    made = split(listed(rows))
    assert {sha: name for sha, _, name in rows if name}.items() <= _by_file(made).items()
    alone = split(listed(_rows(a=30, b=30)))
    assert _by_file(alone).items() <= _by_file(made).items()
    assert made.problems["detail"].tolist() == ["60 photos without a split are shared out"]


def test_train_is_cut_for_a_class_that_a_split_nobody_declared_would_lack(listed: Listed) -> None:
    rows = _rows("train", a=9) + _rows("test", a=3) + _rows(b=60)
    made = split(listed(rows))
    assert made.counts().loc["a"].tolist() == [8, 1, 3]
    assert _kind(made, MOVED) == ["to validation from train, for class 'a'"]


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
        "set aside from train, kept in test: /photos/29.jpg",
        "set aside from validation, kept in test: /photos/28.jpg",
    ]


def _alike(manifest: Manifest, *groups: list[str]) -> Manifest:
    """The manifest, its photos of each group looking the same."""
    similar = {sha: min(group) for group in groups for sha in group}
    column = [similar.get(sha, sha) for sha in manifest.table["sha256"]]
    return Manifest(manifest.table.assign(similar=column), manifest.classes, manifest.problems)


def test_near_duplicates_stay_together(listed: Listed) -> None:
    rows = _rows(a=60, b=60)
    names = [sha for sha, *_ in rows]
    groups = [names[place::20] for place in range(20)]
    made = split(_alike(listed(rows), *groups)).table
    assert (made.groupby("similar")["split"].nunique() == 1).all()
    assert made["split"].nunique() == 3


def test_near_duplicates_across_declared_splits_are_set_aside_from_the_earlier(
    listed: Listed,
) -> None:
    rows = _rows("train", a=5, b=5) + _rows("validation", a=5, b=5) + _rows("test", a=5, b=5)
    names = [sha for sha, *_ in rows]
    made = split(_alike(listed(rows), [names[0], names[20]], [names[1], names[10], names[2]]))
    assert _by_file(made) == {
        sha: name for sha, _, name in rows if sha not in (names[0], names[1], names[2])
    }
    assert set(made.problems["kind"]) == {"near duplicate in another split"}
    assert made.problems["detail"].tolist() == [
        "set aside from train, kept in test: /photos/20.jpg",
        "set aside from train, kept in validation: /photos/10.jpg",
        "set aside from train, kept in validation: /photos/10.jpg",
    ]


def test_what_looks_like_a_declared_photo_joins_its_split(listed: Listed) -> None:
    rows = _rows("test", a=9, b=9) + _rows(a=30, b=30)
    names = [sha for sha, *_ in rows]
    made = split(_alike(listed(rows), *zip(names[:18], names[18:36], strict=True)))
    assert {_by_file(made)[sha] for sha in names[:36]} == {"test"}


# What an earlier run decided


def test_photos_of_an_earlier_split_keep_it_whatever_the_seed(
    listed: Listed, tmp_path: Path
) -> None:
    before = split(listed(_rows(a=40, b=40)), seed=1)
    before.save(tmp_path)
    table = before.table[["split", "sha256"]].replace({"validation": "Val"})
    table.to_csv(tmp_path / "table.csv", index=False)
    grown = listed(_rows(a=60, b=60))
    alone = _by_file(split(grown, seed=2))
    for previous in (before, tmp_path, str(tmp_path), tmp_path / "table.csv"):
        made = split(grown, seed=2, previous=previous)
        assert _by_file(before).items() <= _by_file(made).items()
        new = _by_file(made).keys() - _by_file(before).keys()
        assert {sha: _by_file(made)[sha] for sha in new} == {sha: alone[sha] for sha in new}
        assert "kept by 80 of 120 photos" in _kind(made, "split of before")


def test_what_looks_like_an_earlier_photo_follows_it(listed: Listed) -> None:
    names = [sha for sha, *_ in _rows(a=40, b=40)]
    before = split(listed(_rows(a=20, b=20)))
    new = [sha for sha in names if sha not in _by_file(before)]
    pairs = list(zip(_by_file(before), new, strict=True))
    made = _by_file(split(_alike(listed(_rows(a=40, b=40)), *pairs), seed=5, previous=before))
    assert all(made[old] == made[added] == _by_file(before)[old] for old, added in pairs)


def test_a_new_photo_that_ties_two_earlier_ones_moves_neither(listed: Listed) -> None:
    before = split(listed(_rows(a=30, b=30)))
    train, test = (
        next(sha for sha, name in _by_file(before).items() if name == wanted)
        for wanted in ("train", "test")
    )
    grown = listed([*_rows(a=30, b=30), (_sha("new"), "a", "")])
    made = split(_alike(grown, [train, test, _sha("new")]), previous=before)
    kept = {sha: name for sha, name in _by_file(before).items() if sha != train}
    assert _by_file(made) == {**kept, _sha("new"): "test"}
    assert len(_kind(made, "near duplicate in another split")) == 1


def test_an_earlier_split_outlasts_a_declaration_and_it_is_told(listed: Listed) -> None:
    before = split(listed(_rows(a=30, b=30)))
    declared = [
        (sha, label, "train" if _by_file(before)[sha] == "train" else "test")
        for sha, label, _ in _rows(a=30, b=30)
    ]
    made = split(listed(declared), previous=before)
    assert _by_file(made) == _by_file(before)
    told = _kind(made, "split of before")
    contrary = sum(name == "validation" for name in _by_file(before).values())
    assert told[1:] == ["validation, not test"] * contrary


def test_groups_that_cross_an_earlier_split_are_named(listed: Listed) -> None:
    before = split(listed(_rows(a=30, b=30)))
    manifest = listed(_rows(a=30, b=30), patient=["everyone"] * 60)
    with pytest.raises(DataError, match="cross the declared splits") as caught:
        split(manifest, group="patient", previous=before)
    assert caught.value.received == "'everyone'"


def test_an_earlier_split_that_contradicts_itself_is_refused(
    listed: Listed, tmp_path: Path
) -> None:
    manifest = listed(_rows(a=9, b=9))
    for text, message in [
        ("sha256,split\nf,train\nf,test\n", "1 photos in several splits"),
        ("sha256,place\nf,train\n", "no column 'split'"),
        ("sha256,split\nf,nowhere\n", "'nowhere'"),
    ]:
        (tmp_path / "previous.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            split(manifest, previous=tmp_path / "previous.csv")
    with pytest.raises(DataError, match="cannot be read as a table"):
        split(manifest, previous=tmp_path / "absent.csv")


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
    counts = split(listed(_rows(a=40, b=2)), (0.8, 0.2, 0)).counts()
    assert counts["test"].tolist() == [0, 0]
    assert counts.loc["b"].tolist() == [1, 1, 0]


def test_a_class_far_off_its_share_is_told(listed: Listed) -> None:
    manifest = listed(_rows(a=100, b=100), patient=["x"] * 50 + [""] * 150)
    told = []
    for seed in range(8):
        made = split(manifest, seed=seed, group="patient")
        counts, expected = made.counts().to_numpy(), 100 * np.array([0.7, 0.15, 0.15])
        told += _kind(made, "uneven split")
        for number, label in enumerate("ab"):
            for name, count, share in zip(SPLITS, counts[number], expected, strict=True):
                text = f"{name} has {count} photos of class {label!r}, {share:.0f} are its share"
                found = any(text in detail for detail in _kind(made, "uneven split"))
                assert found == (count < share / 2 or count > share * 2)
    assert told


def test_classes_too_small_are_named_with_their_counts(listed: Listed) -> None:
    rows = [*_rows(a=20, b=2, d=20), *[(_sha("same"), "c", "")] * 5]
    with pytest.raises(DataError, match="too small") as caught:
        split(listed(rows))
    small, copied = caught.value.received.split("\n    ")
    assert small.startswith("'b': train ") and small.count(" 1") == 2
    assert copied.startswith("'c': train ") and copied.count(" 5") == 1


def test_a_small_class_that_is_another_spelling_is_told_so(listed: Listed) -> None:
    rows = _rows(shoes=20, hats=20) + [(_sha(f"x{place}"), "Shoes ", "") for place in range(2)]
    with pytest.raises(DataError) as caught:
        split(listed(rows))
    assert caught.value.received.startswith("'Shoes ' (another spelling of 'shoes'?): train ")


@pytest.mark.parametrize(
    "fractions", [(0.7, 0.3), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (0, 0.5, 0.5)]
)
def test_bad_fractions_are_refused(fractions: tuple, listed: Listed) -> None:
    with pytest.raises(DataError, match="invalid fractions of a split"):
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
