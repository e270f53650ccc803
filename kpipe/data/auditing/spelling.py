"""Find labels that are different spellings of one word.

    key(label) := the label without case, separators, accents and full-width forms:
                  " T-Shirt", "t_shirt", "tshirt"                 -> "tshirt"
                  but "A", "a"; "1.5", "15"; "-1", "1"; "c", "c++"  stay apart

Labels with the same key are certainly variants. A rarer word that lacks, doubles or swaps a letter
of a frequent one, or adds a plural s, may be a variant: it is reported, never merged. In short
words, only a letter of a pair counts: "gren" may be "green", and "bar" is no "bark".

several(label)  := "dog|cat", beside "dog" and "cat": several labels for one photo
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

__all__ = ["Variant", "several_labels", "spelling_variants"]

# Two similar names of real classes would both be frequent: only a rarer one is a typo.
_RARE = 0.3
_LETTERS = 6
_LETTERS_OF_A_PAIR = 4  # "gren" beside "green"
_JOINS = ("|", ",", ";", "+", "&", "/", " and ")
_SEPARATORS = re.compile(r"[\s_\-.'\u2019`]+")


@dataclass(frozen=True)
class Variant:
    """A label that seems to be another."""

    label: str
    of: str  # the most frequent spelling
    certain: bool  # whether only case, separators, accents or width differ


def spelling_variants(counts: Mapping[str, int]) -> list[Variant]:
    """Return labels, of those with these numbers of photos, that seem to be other labels."""
    spellings: dict[str, list[str]] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        spellings.setdefault(_key(label), []).append(label)
    found = [
        Variant(label, labels[0], True) for labels in spellings.values() for label in labels[1:]
    ]
    totals = {key: sum(counts[label] for label in labels) for key, labels in spellings.items()}
    for rare, common in combinations(sorted(totals, key=lambda key: (totals[key], key)), 2):
        if totals[rare] <= _RARE * totals[common] and _is_typo(rare, common):
            found.append(Variant(spellings[rare][0], spellings[common][0], False))
    return found


def several_labels(labels: Iterable[str]) -> dict[str, list[str]]:
    """Return label -> the other labels that it joins, such as "dog|cat" -> ["dog", "cat"]."""
    known = set(labels)
    found = {}
    for label in sorted(known):
        for sign in _JOINS:
            parts = [part.strip() for part in label.split(sign)]
            if len(set(parts)) > 1 and known.issuperset(parts):
                found[label] = parts
                break
    return found


def _key(label: str) -> str:
    text = unicodedata.normalize("NFKC", label)
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf").strip()
    text = _SEPARATORS.sub(_between_digits, _without_accents(text)) or text
    # Single letters are separate classes in upper and lower case.
    return text.casefold() if len(text) > 1 else text


def _between_digits(separator: re.Match[str]) -> str:
    """The separator if it belongs to a number (1.5, 1-5, -1), else ""."""
    text, (start, end) = separator.string, separator.span()
    number = text[end : end + 1].isdigit() and (
        text[start - 1 : start].isdigit() or (start == 0 and separator.group() in "-.")
    )
    return separator.group() if number else ""


def _without_accents(text: str) -> str:
    """Latin letters without marks; in other scripts, marks make other letters."""
    return unicodedata.normalize(
        "NFC",
        "".join(
            unicodedata.normalize("NFD", letter)[0]
            if unicodedata.name(letter, "").startswith("LATIN")
            else letter
            for letter in unicodedata.normalize("NFC", text)
        ),
    )


def _is_typo(rare: str, common: str) -> bool:
    if not (rare.isalpha() and common.isalpha()) or rare[0] != common[0]:
        return False
    if f"{rare}s" == common or rare == f"{common}s":
        return min(len(rare), len(common)) >= 3
    shorter, longer = sorted((rare, common), key=len)
    if len(shorter) < _LETTERS:  # short words with one letter more are words of their own
        return len(shorter) >= _LETTERS_OF_A_PAIR and _lacks_one(shorter, longer, of_a_pair=True)
    return _lacks_one(shorter, longer) or _swapped(rare, common)


def _lacks_one(shorter: str, longer: str, of_a_pair: bool = False) -> bool:
    return len(shorter) + 1 == len(longer) and any(
        longer[:place] + longer[place + 1 :] == shorter
        for place in range(len(longer))
        if not of_a_pair or longer[place] == longer[place + 1 : place + 2]
    )


def _swapped(one: str, other: str) -> bool:
    places = [place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
    if len(one) != len(other) or len(places) != 2 or places[1] != places[0] + 1:
        return False
    first, second = places
    return one[first] == other[second] and one[second] == other[first]
