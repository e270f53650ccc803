r"""Text of users' files that is safe on a terminal, on a page and in a spreadsheet.

printable   ESC[31m           -> \x1b[31m      invisible characters, line breaks
cell        =HYPERLINK(...)   -> '=HYPERLINK(...)

In tables, `escaped` and `cell` also escape a backslash that looks like an escape, which makes
them reversible: `original` and `cell_text` restore the text; `name_in_cell` restores a name from a
table that kpipe may not have written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = [
    "cell",
    "cell_text",
    "escaped",
    "name_in_cell",
    "original",
    "printable",
    "quoted",
    "shortened",
]

_INVISIBLE = (
    r"\x00-\x1f\x7f-\x9f\u2028\u2029"  # control characters and line breaks
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks and overrides of the writing direction
    r"\u00ad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)
_ESCAPE = r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U00(?:0[0-9a-f]|10)[0-9a-f]{4}"
_HIDDEN = re.compile(f"[{_INVISIBLE}]")
_UNSAFE = re.compile(rf"[{_INVISIBLE}]|(?={_ESCAPE})\\")
_ESCAPED = re.compile(_ESCAPE)
# A negative number stays one.
_NUMBER = r"-[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?\Z"
_FORMULA = re.compile(rf"(?!{_NUMBER})'*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_LONG = 80


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return a text without invisible characters: \x1b in place of ESC.

    Args:
        text: any text.
        lines: whether line breaks stay, for a text of several lines.

    Example:
        >>> from kpipe.printable import printable
        >>> print(printable("red\x1b[31m"))
        red\x1b[31m
    """
    if lines:
        return "\n".join(map(printable, text.split("\n")))
    return _HIDDEN.sub(_escape, text)


def escaped(text: str) -> str:
    """Return a printable text from which `original` restores the text."""
    return _UNSAFE.sub(_escape, text)


def original(text: str) -> str:
    """Return the text that `escaped` was given."""
    return _ESCAPED.sub(lambda found: chr(int(found[0][2:], 16)), text)


def cell(text: str) -> str:
    """Return an escaped text that no spreadsheet takes for a formula."""
    text = escaped(text)
    return f"'{text}" if _FORMULA.match(text) else text


def cell_text(text: str) -> str:
    """Return the text that `cell` was given."""
    return original(text.removeprefix("'") if _FORMULA.match(text) else text)


def name_in_cell(text: str) -> str:
    r"""Return the name for which `cell` returns the text; the text itself, if there is none.

    Example:
        >>> from kpipe.printable import name_in_cell
        >>> name_in_cell("'=red"), name_in_cell("'red"), name_in_cell(r"\x41")
        ('=red', "'red", '\\x41')
    """
    name = cell_text(text)
    return name if cell(name) == text else text


def shortened(text: str, limit: int = _LONG) -> str:
    """Return a text, cut after `limit` characters.

    >>> shortened("a" * 100, 10)
    'aaaaaaaaaa... (100 characters)'
    """
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def quoted(values: Iterable[object], most: int = 20) -> str:
    """Return quoted values, separated by commas, without those beyond `most`.

    >>> quoted(["a", 1])
    "'a', 1"
    """
    found = list(values)
    shown = [shortened(repr(value)) for value in found[:most]]
    return ", ".join([*shown, *(["..."] if len(found) > most else [])])


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 256:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
