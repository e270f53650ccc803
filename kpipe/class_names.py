"""Check class names: `labels.txt` holds one on each line."""

from __future__ import annotations

from collections.abc import Iterable

from kpipe.errors import KpipeError
from kpipe.printable import quoted

__all__ = ["refuse_class_names", "unusable_class_names"]


def unusable_class_names(names: Iterable[str]) -> list[str]:
    r"""Return the names that a line of `labels.txt` cannot hold, sorted.

    Example:
        >>> from kpipe.class_names import unusable_class_names
        >>> unusable_class_names(["cat", "new\nline", " "])
        [' ', 'new\nline']
    """
    # A byte order mark is dropped when the file is read, and lone surrogates cannot be written.
    return sorted(
        name
        for name in set(names)
        if not name.strip()
        or name.splitlines() != [name]
        or name.startswith("\ufeff")
        or any("\ud800" <= letter <= "\udfff" for letter in name)
    )


def refuse_class_names(names: Iterable[str], source: str, error: type[KpipeError]) -> None:
    """Raise `error` for class names that `labels.txt` cannot hold.

    Args:
        names: the class names.
        source: where they come from, for the message.
        error: the exception to raise.
    """
    if found := unusable_class_names(names):
        raise error(
            f"unusable class names in {source}",
            expected="names of one line that are not blank: labels.txt has one on each line",
            received=quoted(found),
            fix="rename these classes",
        )
