"""The members inside an ensemble's file, against the Keras members."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from kpipe.ensemble import apply_temperature, average, vote
from kpipe.lite import Classifier, LiteModel, convert
from kpipe.lite.runtime.member_outputs import MemberOutputs
from tests.lite.conftest import photos, seeded, small_classifier

LABELS = ["ant", "bee", "crab"]
FORMS = {
    "average": average,
    "calibrated": lambda members: apply_temperature(average(members), 1.5),
    "vote": vote,
}


@pytest.fixture(scope="module")
def members() -> list[keras.Model]:
    return [seeded(small_classifier(), seed) for seed in range(3)]


@pytest.mark.parametrize("form", FORMS)
def test_each_member_predicts_what_it_predicts_alone(form: str, members, tmp_path: Path) -> None:
    path, images = tmp_path / "ensemble.tflite", photos(3)
    path.write_bytes(convert(FORMS[form](members)))
    # A temperature of the ensemble holds for its members.
    alone = [apply_temperature(m, 1.5) if form == "calibrated" else m for m in members]
    expected = np.stack([member(images.astype("float32")) for member in alone], axis=1)
    found = Classifier(path, LABELS, members=True).predict(images)
    rows = [[[member[label] for label in LABELS] for member in one.members] for one in found]
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    plain = Classifier(path, LABELS).predict(images)
    assert [one.probabilities for one in plain] == [one.probabilities for one in found]
    assert all(one.members == () for one in plain)


def test_members_of_a_member_are_not_counted(members) -> None:
    found = MemberOutputs(LiteModel(convert(average([average(members[:2]), average(members)]))))
    assert found.count == 2
    image = photos(1)[0]
    one, two, three = (member(image[None].astype("float32")).numpy()[0] for member in members)
    expected = [(one + two) / 2, (one + two + three) / 3]
    np.testing.assert_allclose(found.predict(image), expected, atol=1e-4)


@pytest.mark.parametrize("form", ["float_file", "int8_file"])
def test_other_files_have_none(form: str, request: pytest.FixtureRequest) -> None:
    assert MemberOutputs(LiteModel(request.getfixturevalue(form))).count == 0
