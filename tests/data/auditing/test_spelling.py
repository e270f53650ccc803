from __future__ import annotations

import pytest

from kpipe.data.auditing.spelling import several_labels, spelling_variants


def pairs(counts: dict[str, int]) -> set[tuple[str, str, bool]]:
    return {(found.label, found.of, found.certain) for found in spelling_variants(counts)}


@pytest.mark.parametrize(
    ("variant", "usual"),
    [
        ("HAPPINESS", "happiness"),
        ("T_Shirt ", "t-shirt"),
        ("tshirt", "t-shirt"),
        ("cafe", "café"),
        ("cafe\N{COMBINING ACUTE ACCENT}", "café"),
        ("\N{FULLWIDTH LATIN SMALL LETTER C}at", "cat"),
        ("ice cream", "Ice-Cream"),
    ],
)
def test_another_way_to_write_a_word_is_a_variant_of_the_more_frequent(
    variant: str, usual: str
) -> None:
    assert pairs({usual: 50, variant: 40}) == {(variant, usual, True)}
    assert pairs({usual: 40, variant: 50}) == {(usual, variant, True)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("shirt", "skirt"),
        ("cat", "car"),
        ("class1", "class2"),
        ("class 1.5", "class 15"),
        ("-1", "1"),
        ("A", "a"),
        ("c", "c++"),
        ("shirt", "t-shirt"),
        ("male", "female"),
        ("glass", "glasses"),
        ("cat", "cats"),
    ],
)
def test_real_classes_are_no_variants(one: str, other: str) -> None:
    assert pairs({one: 50, other: 40}) == set()


@pytest.mark.parametrize("slip", ["hapiness", "happinness", "hapipness"])
def test_a_rare_slip_of_the_pen_is_perhaps_a_variant(slip: str) -> None:
    assert pairs({"happiness": 200, slip: 3}) == {(slip, "happiness", False)}
    assert pairs({"happiness": 200, slip: 150}) == set()


def test_three_spellings_lead_to_one() -> None:
    assert pairs({"Dog": 3, "dog": 9, "DOG": 5}) == {("DOG", "dog", True), ("Dog", "dog", True)}


@pytest.mark.parametrize(
    ("rare", "common"),
    [
        (("sunflwer", 15), ("sunflower", 60)),
        (("tulip", 3), ("tulips", 20)),
        (("gren", 3), ("green", 17)),
        (("yelow", 2), ("yellow", 17)),
        (("reedd", 2), ("reed", 17)),
    ],
)
def test_a_slip_in_a_quarter_of_the_photos_is_found(
    rare: tuple[str, int], common: tuple[str, int]
) -> None:
    assert pairs(dict([rare, common])) == {(rare[0], common[0], False)}


@pytest.mark.parametrize(("rare", "common"), [("her", "here"), ("bar", "bark"), ("bet", "beet")])
def test_short_words_with_another_letter_are_words(rare: str, common: str) -> None:
    assert pairs({rare: 3, common: 60}) == set()


@pytest.mark.parametrize("label", ["dog|cat", "dog, cat", "dog;cat", "dog and cat", "cat+dog"])
def test_a_label_that_joins_others_is_found(label: str) -> None:
    assert set(several_labels(["cat", "dog", label])) == {label}


@pytest.mark.parametrize(
    "labels",
    [
        ["hot dog", "dog"],
        ["hot dog", "hot", "dog"],
        ["a a", "a"],
        ["a/a", "a"],
        ["t-shirt", "shirt"],
        ["a/b", "a"],
        ["|"],
    ],
)
def test_other_labels_join_none(labels: list[str]) -> None:
    assert several_labels(labels) == {}
