"""`kpipe run` that kills itself: `python -m tests.killed MOMENT NUMBER run FILE --root ROOT`.

    MOMENT                NUMBER counts
    event:STAGE:EVENT     events of the journal, `step` (within an epoch) among them
    rename:PART           renames of files whose path contains PART; killed before the rename
    write:PART            files opened for writing whose path contains PART; killed before the open

SIGKILL ends the process at once: no handler, no `finally`, no flushed buffer.
"""

from __future__ import annotations

import os
import signal
import sys

from kpipe import cli
from kpipe.cli import run as run_command
from kpipe.core.journal import Event
from kpipe.report.terminal import Progress


class Countdown:
    """Kills the process at zero."""

    def __init__(self, number: int) -> None:
        self.left = number

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    moment, number, *words = sys.argv[1:]
    sys.argv = ["kpipe", *words]
    kind, _, rest = moment.partition(":")
    countdown = Countdown(int(number))
    if kind == "event":
        stage, _, name = rest.partition(":")

        class CountingProgress(Progress):
            def show(self, event: Event) -> None:
                super().show(event)
                if (event.get("stage"), event["event"]) == (stage, name):
                    countdown.step()

        run_command.Progress = CountingProgress  # type: ignore[misc]
    else:

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            path, mode = str(arguments[0]) if arguments else "", ""
            if event == "open":
                mode = str(arguments[1])
            hit = (kind == "rename" and event == "os.rename") or (kind == "write" and "w" in mode)
            if hit and rest in path:
                countdown.step()

        sys.addaudithook(hook)
    cli.main()


if __name__ == "__main__":
    main()
