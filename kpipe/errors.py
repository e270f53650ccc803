"""Every exception that kpipe raises.

    KpipeError                   what went wrong, expected, received, what to do
    |-- PipelineError            an invalid declaration
    |-- DataError                invalid photos, tables, labels or splits
    |-- WeightsError             pretrained weights that are unavailable or do not fit
    |-- TrainingError            a training run that cannot start or continue
    |-- PruneError               a model that cannot be pruned as requested
    |-- SparsityError            a model that cannot be converted to tf_keras or back
    |-- ExportError              a failed conversion or quantization, or an invalid exported file
    |-- StoreError               results that cannot be stored or read back
    `-- InstallationError        a package that is not installed; also an ImportError

The command line prints them without a traceback and exits with code 2.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable

from kpipe.printable import printable, shortened

__all__ = [
    "DataError",
    "ExportError",
    "InstallationError",
    "KpipeError",
    "PipelineError",
    "PruneError",
    "SparsityError",
    "StoreError",
    "TrainingError",
    "WeightsError",
    "nearest",
]


# Characters of a line of a message; a cell of a table may be longer.
_LINE = 1000


class KpipeError(Exception):
    """The base class: what happened, what was expected, what was received and what to do.

    Args:
        what: one sentence that names the offender.
        expected: the valid values.
        received: the actual value.
        fix: what to do next, as a command if there is one.

    Example:
        >>> from kpipe import KpipeError
        >>> print(KpipeError("epochs=0 is invalid", expected="1 or more", fix="pass epochs=1"))
        epochs=0 is invalid
          expected: 1 or more
          what to do: pass epochs=1
    """

    def __init__(self, what: str, *, expected: str = "", received: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected
        self.received = received
        self.fix = fix

    def __str__(self) -> str:
        rows = [("expected", self.expected), ("received", self.received), ("what to do", self.fix)]
        text = "\n".join([self.what, *(f"  {name}: {text}" for name, text in rows if text)])
        return "\n".join(shortened(printable(line), _LINE) for line in text.split("\n"))

    def __reduce__(self) -> tuple[object, ...]:
        # Exception drops keyword-only arguments when pickled, and an executor may run stages in
        # another process.
        fields = {"expected": self.expected, "received": self.received, "fix": self.fix}
        return functools.partial(type(self), self.what, **fields), ()


class PipelineError(KpipeError):
    """An invalid declaration."""


class DataError(KpipeError):
    """Invalid photos, tables, labels or splits."""


class WeightsError(KpipeError):
    """Pretrained weights that are unavailable or do not fit the architecture."""


class TrainingError(KpipeError):
    """A training run that cannot start or continue."""


class PruneError(KpipeError):
    """A model that cannot be pruned as requested."""


class SparsityError(KpipeError):
    """A model that cannot be converted to tf_keras or back."""


class ExportError(KpipeError):
    """A failed conversion or quantization, or an invalid exported file."""


class StoreError(KpipeError):
    """Results that cannot be stored or read back."""


class InstallationError(KpipeError, ImportError):
    """A package that is not installed, or two installations in one place."""


def nearest(name: object, names: Iterable[str]) -> str:
    """Return a hint for a misspelt name: the closest valid name, or the list of names.

    Example:
        >>> from kpipe.errors import nearest
        >>> nearest("sheer", ["shear", "flip"])
        "did you mean 'shear'?"
    """
    known = sorted(names)
    folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1)
    if close:
        return f"did you mean {folded[close[0]]!r}?"
    return "use one of: " + ", ".join(known)
