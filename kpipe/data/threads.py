"""One function on many files, in threads (Pillow and hashlib release the interpreter lock)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ProgressCallback", "in_threads"]

ProgressCallback = Callable[[int, int], None]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Largest number of results that wait in memory.
_AHEAD = 256


def in_threads(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    progress: ProgressCallback | None = None,
) -> Iterator[_Result]:
    """Yield the results of `function`, in the order of the items.

    Args:
        function: called from several threads at once.
        items: its arguments.
        progress: called as `progress(done, total)` from this thread after each result is used.
    """
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
        for start in range(0, len(items), _AHEAD):
            chunk = items[start : start + _AHEAD]
            for place, result in enumerate(pool.map(function, chunk), start + 1):
                yield result
                if progress is not None:
                    progress(place, len(items))
