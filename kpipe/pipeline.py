"""The pipeline that users import: a declaration, and in Python what the commands do with one.

Pipeline.run     kpipe run
Pipeline.plan    kpipe plan
Pipeline.report  kpipe report
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kpipe.core import pipeline as declared
from kpipe.core.journal import Listener

if TYPE_CHECKING:
    from kpipe.core.runner import PlannedStage, RunResult

__all__ = ["DEFAULT_ROOT", "Pipeline"]

DEFAULT_ROOT = Path("saved_models")


class Pipeline(declared.Pipeline):
    """The declaration that `kpipe run` executes.

    Args:
        name: letters, digits, `-`, `_` and `.`; also the name of the folder below `saved_models`.
        stages: the stages, in the order in which they run.
        seed: the seed of every random draw of every stage, in [0, 2**31 - 1].

    Raises:
        PipelineError: the pipeline is invalid; the message names every error.

    Example:
        >>> from kpipe import Pipeline
        >>> from kpipe.stages import Data, Export, FineTune
        >>> pipeline = Pipeline("colors", [Data("photos"), FineTune("MobileNetV2"), Export()])
        >>> pipeline.with_settings(["FineTune.epochs=3", "seed=1"]).stages[1].epochs
        3
    """

    def run(
        self,
        root: str | Path = DEFAULT_ROOT,
        *,
        fresh: bool = False,
        quiet: bool = False,
        listeners: Sequence[Listener] = (),
    ) -> RunResult:
        """Run the pipeline as `kpipe run` does, skipping finished stages, and write its report.

        Args:
            root: the folder of all results; created if missing.
            fresh: run every stage again, ignoring cached results.
            quiet: print nothing.
            listeners: called with each event of the journal, a dictionary: `event["event"]` is
                "stage_started", "epoch", "note", "stage_finished" and others; see the
                `journal.jsonl` of a run.

        Returns:
            The folder of the run, and the names of the stages that ran and that were cached.

        Raises:
            KpipeError: a stage failed or refused its result.
            StoreError: the disk is full, or another run of this pipeline is in progress.

        Example:
            >>> from kpipe import Pipeline
            >>> from kpipe.stages import Data
            >>> events = []
            >>> pipeline = Pipeline("colors", [Data("photos", image_size=32)])
            >>> result = pipeline.run(quiet=True, listeners=[events.append])
            >>> result.made, (result.folder / "report.html").exists()
            (('Data',), True)
            >>> [event["event"] for event in events][:2]
            ['run_started', 'stage_started']
        """
        from rich.console import Console

        from kpipe.core.disk_errors import translate_disk_errors
        from kpipe.core.runner import run
        from kpipe.report import Progress, models_table, write_report

        console = Console(quiet=quiet)
        with translate_disk_errors(Path(root)):
            with Progress(console) as progress:
                heard = (progress.show, *listeners)
                result = run(self, Path(root), fresh=fresh, listeners=heard)
            if table := models_table(result.folder):
                console.print(table)
            if result.made or not (result.folder / "report.html").exists():
                write_report(result.folder)
        return result

    def plan(self, root: str | Path = DEFAULT_ROOT) -> list[PlannedStage]:
        """Return what `run` would do with each stage, and why.

        Args:
            root: the folder of all results.

        Raises:
            KpipeError: a run would fail before its first stage.

        Example:
            >>> from kpipe import Pipeline
            >>> from kpipe.stages import Data
            >>> steps = Pipeline("colors", [Data("photos")]).plan()
            >>> [(step.stage, step.status, step.why) for step in steps]
            [('Data', 'runs', 'has no earlier result')]
        """
        from kpipe.core.disk_errors import translate_disk_errors
        from kpipe.core.runner import plan

        with translate_disk_errors(Path(root)):
            return plan(self, Path(root))

    def report(self, root: str | Path = DEFAULT_ROOT) -> Path:
        """Write the HTML report of the run again, and return its path.

        Args:
            root: the folder of all results.

        Raises:
            KpipeError: the pipeline was not run, or its photos have changed since.

        Example:
            >>> from kpipe import Pipeline
            >>> from kpipe.stages import Data
            >>> pipeline = Pipeline("colors", [Data("photos", image_size=32)])
            >>> _ = pipeline.run(quiet=True)
            >>> pipeline.report().name
            'report.html'
        """
        from kpipe.core.disk_errors import translate_disk_errors
        from kpipe.core.runner import run_folder
        from kpipe.report import write_report

        with translate_disk_errors(Path(root)):
            return write_report(run_folder(self, Path(root)))
