import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kpipe.errors import DataError
from kpipe.printable import cell, cell_text, escaped, original, printable, quoted, shortened

# Mostly what escapes and formulas are made of.
TEXTS = st.text(st.sampled_from("\\xuU01bc5e=+-'@\x1b\n\u202e\U000e0001") | st.characters())


@given(TEXTS)
def test_escapes_can_be_undone(text):
    assert original(escaped(text)) == text
    assert cell_text(cell(text)) == text


@given(st.text(st.sampled_from("\\xuUdf01")))
@example("\\Udeadbeef")
@example("\\U00110000")
def test_any_text_has_an_original(text):
    assert len(original(text)) <= len(text)


def test_what_is_no_code_point_stays():
    assert original("\\Udeadbeef, \\U00110000") == "\\Udeadbeef, \\U00110000"
    assert original(escaped("\U0010ffff\U000e0001")) == "\U0010ffff\U000e0001"


@given(TEXTS)
def test_nothing_invisible_is_left(text):
    kinds = {
        unicodedata.category(letter) for letter in printable(text) if letter not in "\u200c\u200d"
    }
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    assert not set(printable(text)) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert printable(printable(text)) == printable(text)
    assert cell(text)[:1] not in set("=+-@\t\r") or re.fullmatch("-[0-9.e-]+", cell(text))


@pytest.mark.parametrize("text", ["-1", "-70.25", "-1e-05"])
def test_a_negative_number_is_no_formula(text):
    assert cell(text) == text == cell_text(text)
    assert cell(f"{text}+1") == f"'{text}+1"
    assert cell_text(cell(f"'{text}")) == f"'{text}"


@pytest.mark.parametrize("text", ["t-shirt", r"C:\photos\1.jpg", "犬", "👩\u200d🌾"])
def test_plain_text_stays(text):
    assert printable(text) == cell(text) == text


def test_lines_of_a_message_stay_and_those_of_a_name_do_not():
    assert printable("a\x1b\nb", lines=True) == "a\\x1b\nb"
    assert printable("a\x1b\nb") == "a\\x1b\\x0ab"


def test_an_error_shows_no_control_characters_and_cuts_long_lines():
    text = str(DataError("\x1b[31mred", received="x" * 5000, fix="a\nb"))
    assert text.startswith("\\x1b[31mred\n")
    assert "a\nb" in text
    assert max(map(len, text.splitlines())) < 1100


def test_long_values_and_long_lists_are_cut():
    assert quoted(["a" * 1000]) == f"'{'a' * 79}... (1002 characters)"
    assert quoted(range(3), 2) == "0, 1, ..."
    assert shortened("short") == "short"
