"""What follows from the photos, and that the text declares just that."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from kpipe.stages import Augment, Data
from kpipe.starter import Choice, PhotoFacts, choose, machine_speed, minutes, render

FACTS = PhotoFacts({"cat": 500, "dog": 450}, width=640, height=480, grey=False, split=False)


def chosen(facts: PhotoFacts = FACTS, *options: Any) -> dict[str, Any]:
    return {choice.stage.name: choice.stage for choice in choose(facts, "photos", *options)}


def executed(text: str) -> Any:
    names: dict[str, Any] = {}
    exec(text, names)
    return names["pipeline"]


@pytest.mark.parametrize("target", ["phone", "server"])
@pytest.mark.parametrize("effort", ["quick", "standard", "best"])
def test_the_text_declares_what_was_chosen(target: Any, effort: Any) -> None:
    choices = choose(FACTS, 'my photos/2 "new"', target, effort)
    text = render("my photos", choices, str(FACTS))
    pipeline = executed(text)
    assert pipeline.name == "my-photos"
    assert list(pipeline.stages) == [choice.stage for choice in choices]
    assert pipeline.stages[0].source == 'my photos/2 "new"'
    assert {"FineTune", "Export"} <= {stage.name for stage in pipeline.stages}
    assert max(map(len, text.splitlines())) <= 100
    assert len(text.splitlines()) <= 30


@pytest.mark.parametrize(
    ("changed", "size"),
    [({}, 160), ({"height": 100}, 96), ({"width": 20}, 32), ({"width": 160, "height": 160}, 160)],
)
def test_photos_are_not_enlarged(changed: dict[str, int], size: int) -> None:
    assert chosen(dataclasses.replace(FACTS, **changed))["Data"].image_size == size


def test_uneven_classes_are_weighted() -> None:
    assert "Balance" not in chosen()
    uneven = dataclasses.replace(FACTS, counts={"cat": 500, "dog": 100})
    assert chosen(uneven)["Balance"].method == "class_weight"
    reason = choose(uneven, "photos")[1].reason
    assert reason == "dog has 100 photos, another class 5.0 times as many"


@pytest.mark.parametrize(
    "names",
    [
        "abc",
        "0123",
        ["left", "Right"],
        ["10", "20", "5"],
        ["left-turn", "stop"],
        ["Turn right", "x1"],
    ],
)
def test_symbols_are_not_mirrored(names: Any) -> None:
    symbols = dataclasses.replace(FACTS, counts=dict.fromkeys(names, 100))
    assert chosen(symbols)["Augment"].flip == ""
    bright = dataclasses.replace(FACTS, counts={"bright": 100, "cleft": 100})
    assert chosen(bright)["Augment"].flip == chosen()["Augment"].flip == "horizontal"


def test_grey_photos_keep_their_color() -> None:
    assert chosen(dataclasses.replace(FACTS, grey=True))["Augment"].color == 0
    assert chosen()["Augment"].color == Augment().color


def test_small_classes_are_in_each_split_unless_splits_are_declared() -> None:
    small = dataclasses.replace(FACTS, counts={"cat": 500, "dog": 24})
    assert chosen(small)["Data"].min_photos == 4
    assert chosen(dataclasses.replace(small, split=True))["Data"].min_photos == 1
    assert chosen(dataclasses.replace(small, counts={"cat": 9, "dog": 0}))["Data"].min_photos == 1


def test_hostile_names_stay_inside_the_comment() -> None:
    name = "x\n]); import os  #"
    uneven = dataclasses.replace(FACTS, counts={"cat": 500, name: 100})
    text = render('a/b\\c"""', choose(uneven, "p"), str(uneven))
    pipeline = executed(text)
    assert pipeline.name == "a-b-c"
    assert [line.strip() for line in text.splitlines() if "import os" in line] == [
        "# x\\x0a]); import os  # has 100 photos, another class 5.0 times as many"
    ]


def test_more_work_takes_longer() -> None:
    def longest(facts: PhotoFacts, *options: Any) -> int:
        least, most = minutes(facts, choose(facts, "photos", *options), speed=1e10)
        assert 1 <= least < most
        return most

    quick, standard, best = (
        longest(FACTS, "phone", effort) for effort in ("quick", "standard", "best")
    )
    assert quick < standard < best
    many = dataclasses.replace(FACTS, counts={"cat": 50_000, "dog": 45_000})
    assert longest(many) > 20 * longest(FACTS)
    assert machine_speed() > 1e6


def test_only_declared_fields_are_written() -> None:
    text = render("x", [Choice(Data("photos", split=(0.6, 0.2, 0.2)), "why")], "9 photos")
    assert '        Data("photos", split=(0.6, 0.2, 0.2)),' in text.splitlines()
