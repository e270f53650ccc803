"""Make SIGTERM and SIGHUP interrupt a command as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

__all__ = ["Interruption", "interruptible"]

# Windows has no SIGHUP.
_NAMES = ("SIGTERM", "SIGHUP")


class Interruption:
    """Which signal interrupted the command.

    Attributes:
        number: the signal; SIGINT unless another one came first.
    """

    def __init__(self) -> None:
        self.number = signal.SIGINT


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Raise KeyboardInterrupt in the block when a signal asks the process to end."""
    interruption = Interruption()
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Several signals may come at once, when a session ends; only the first one counts.
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        interruption.number = signal.Signals(number)
        raise KeyboardInterrupt

    # `nohup` ignores SIGHUP, and must go on doing so.
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield interruption
    finally:
        for number in taken:
            signal.signal(number, before[number])
