import dataclasses
import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpipe.core.fingerprint import canonical, fingerprint
from kpipe.errors import PipelineError

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(values)
def test_a_value_survives_the_round_trip_through_its_json(value):
    assert fingerprint(json.loads(json.dumps(canonical(value)))) == fingerprint(value)


@given(st.dictionaries(st.text(), scalars))
def test_the_order_of_keys_does_not_matter(mapping):
    backwards = dict(reversed(mapping.items()))
    assert fingerprint(backwards) == fingerprint(mapping)


@given(st.lists(st.integers(), min_size=2, unique=True))
def test_the_order_of_items_matters(items):
    assert fingerprint(items) != fingerprint(items[::-1])


def test_equal_configurations_have_equal_fingerprints():
    @dataclasses.dataclass
    class Pair:
        left: float
        right: tuple

    assert fingerprint(Pair(1.0, (1, 2))) == fingerprint({"left": 1, "right": [1, 2]})
    assert fingerprint(PurePosixPath("a/b")) == fingerprint("a/b")


def test_different_configurations_have_different_fingerprints():
    different = [None, False, 0, "", "0", 0.5, [], {}, [0], {"0": 0}, "None"]
    assert len({fingerprint(value) for value in different}) == len(different)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), len, {1: 2}, {1, 2}, b"bytes"])
def test_a_value_without_a_canonical_form_is_refused_with_its_place(value):
    with pytest.raises(PipelineError, match=r"stage\.field\[1\]"):
        canonical({"field": [0, value]}, where="stage")
