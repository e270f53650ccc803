"""Everything that kpipe raises on purpose.

    KpipeError                   what went wrong, expected, received, what to do
    |-- PipelineError            a declaration that cannot be run
    |-- DataError                photos, tables, labels, splits
    |-- WeightsError             pretrained weights that cannot be had or do not fit
    |-- TrainingError            a fit that cannot start or cannot go on
    |-- PruneError               a graph that cannot be cut as asked
    |-- SparsityError            a model that cannot cross to tf_keras or back
    |-- ExportError              conversion, quantization, or an exported file that is not right
    `-- StoreError               results that cannot be kept or read back

The command line prints any of them without a traceback and exits with 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "DataError",
    "ExportError",
    "KpipeError",
    "PipelineError",
    "PruneError",
    "SparsityError",
    "StoreError",
    "TrainingError",
    "WeightsError",
    "nearest",
]


class KpipeError(Exception):
    """An error that says what happened, what was expected, what was received and what to do.

    Args:
        what: one sentence, naming the offender.
        expected: what would have been right.
        received: what there was instead.
        fix: the next thing to do, a command where there is one.
    """

    def __init__(self, what: str, *, expected: str = "", received: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected
        self.received = received
        self.fix = fix

    def __str__(self) -> str:
        rows = [("expected", self.expected), ("received", self.received), ("what to do", self.fix)]
        return "\n".join([self.what, *(f"  {name}: {text}" for name, text in rows if text)])

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive Exception's own reduction, and an executor may
        # carry the error from another process.
        return _rebuild, (type(self), self.what, self.expected, self.received, self.fix)


def _rebuild(
    kind: type[KpipeError], what: str, expected: str, received: str, fix: str
) -> KpipeError:
    return kind(what, expected=expected, received=received, fix=fix)


class PipelineError(KpipeError):
    """A declaration that cannot be run."""


class DataError(KpipeError):
    """Photos, tables, labels or splits that cannot be used."""


class WeightsError(KpipeError):
    """Pretrained weights that cannot be had, or do not fit the architecture."""


class TrainingError(KpipeError):
    """A fit that cannot start or cannot go on."""


class PruneError(KpipeError):
    """A graph that cannot be cut as asked."""


class SparsityError(KpipeError):
    """A model that cannot cross to tf_keras or back."""


class ExportError(KpipeError):
    """Conversion, quantization, or an exported file that is not right."""


class StoreError(KpipeError):
    """Results that cannot be kept or read back."""


def nearest(name: object, names: Iterable[str]) -> str:
    """A hint such as "did you mean 'shear'?" for a misspelt name, or the list of names.

    >>> nearest("sheer", ["shear", "flip"])
    "did you mean 'shear'?"
    """
    known = sorted(names)
    folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1)
    if close:
        return f"did you mean {folded[close[0]]!r}?"
    return "use one of: " + ", ".join(known)
