from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from kpipe.data.auditing.duplicates import duplicate_problems
from kpipe.data.manifest import SPLITS

Row = tuple[int, int, str, str]


def expected(table: pd.DataFrame, kind: str) -> list[tuple[str, str, str]]:
    """The conflicts or crossings, by comparing every row with every other."""
    rows = list(table.itertuples())
    order = {similar: place for place, similar in enumerate(dict.fromkeys(table["similar"]))}
    found = []
    for row in rows:
        others = [other for other in rows if other.similar == row.similar]
        if kind == "same photo, two labels":
            others = [other for other in others if other.label != row.label]
            others.sort(key=lambda other: other.sha256 != row.sha256)
        else:
            ranks = [SPLITS.index(other.split) for other in others]
            last = others[ranks.index(max(ranks))]
            others = [last] if last.split != row.split else []
        if others:
            found.append((order[row.similar], row.path, others[0]))
    found.sort(key=lambda one: one[0])
    return [(path, kind, other.path) for _, path, other in found]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.integers(0, 1), st.sampled_from("abc"), st.sampled_from(SPLITS)
        ),
        max_size=30,
    )
)
@settings(max_examples=20, deadline=None)
def test_each_is_named_beside_the_first_that_differs(drawn: list[Row]) -> None:
    table = pd.DataFrame(drawn, columns=["similar", "copy", "label", "split"])
    table["sha256"] = table["similar"].astype("str") + "-" + table["copy"].astype("str")
    table["path"] = [f"{place}.jpg" for place in range(len(table))]
    table = table.astype({"similar": "str", "label": "str", "split": "str", "path": "str"})
    problems = duplicate_problems(table, lambda rows, others: np.full(len(rows), 0.5))
    for kind in ("same photo, two labels", "duplicates cross splits"):
        found = [problem for problem in problems if problem[1] == kind]
        wanted = expected(table, kind)
        assert [path for path, *_ in found] == [path for path, *_ in wanted]
        for (*_, detail), (*_, other) in zip(found, wanted, strict=True):
            assert f" {other} (" in detail or detail.endswith(f": {other}")


def test_the_same_contents_are_compared_once() -> None:
    rows = [
        (f"{content}.jpg", f"label {label}", "", f"sha {content}", "sha 0")
        for content in (0, 1)
        for label in range(5)
    ]
    table = pd.DataFrame(rows, columns=["path", "label", "split", "sha256", "similar"])
    compared = list[int]()

    def likeness(rows: object, others: object) -> np.ndarray:
        compared.append(len(rows))  # type: ignore[arg-type]
        return np.full(compared[-1], 0.75)

    problems = duplicate_problems(table, likeness)
    assert len([one for one in problems if one[1] == "same photo, two labels"]) == 10
    near = [detail for _, kind, detail in problems if kind == "near duplicate"]
    assert near == ["74.9 % alike: 0.jpg"] * 5
    # Two labels: copies are named, and not compared. Near duplicates: one pair of contents.
    assert compared == [1, 0]
