"""Where a stage runs.

An executor receives a picklable stage and context, and returns once the stage has written its
folder. An exception of the stage propagates unchanged.
"""

from __future__ import annotations

from typing import Protocol

from kpipe.core.stage import Context, Stage

__all__ = ["Executor", "LocalExecutor"]


class Executor(Protocol):
    """The interface that the runner needs."""

    def execute(self, stage: Stage, context: Context) -> None:
        """Run a stage to completion."""
        ...


class LocalExecutor:
    """Run stages in the current process."""

    def execute(self, stage: Stage, context: Context) -> None:
        """Run a stage to completion."""
        stage.run(context)
