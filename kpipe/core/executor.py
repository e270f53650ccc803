"""Where a stage runs.

An executor gets a stage and its context, both picklable, and returns when the stage has written its
folder. What the stage raises, the executor raises.
"""

from __future__ import annotations

from typing import Protocol

from kpipe.core.stage import Context, Stage

__all__ = ["Executor", "LocalExecutor"]


class Executor(Protocol):
    """What the runner asks of an executor."""

    def execute(self, stage: Stage, context: Context) -> None:
        """Run the stage to its end."""
        ...


class LocalExecutor:
    """Runs a stage in this process."""

    def execute(self, stage: Stage, context: Context) -> None:
        """Run the stage to its end."""
        stage.run(context)
