"""A run on the terminal: a line per event, a progress bar, and a table of the exported models."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich import progress as bars
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kpipe.core.journal import Event
from kpipe.printable import printable
from kpipe.report.results import read_metrics
from kpipe.wrong_kinds import names_wrong_kinds, names_wrong_kinds_of_fields

__all__ = ["Progress", "models_table", "print_line"]


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print a line in a Rich style such as "bold", without markup, highlighting or wrapping."""
    # Paths may contain what looks like markup, and commands are there to be copied.
    console.print(
        printable(text, lines=True), style=style, markup=False, highlight=False, soft_wrap=True
    )


@names_wrong_kinds_of_fields
class Progress:
    """Show the events of a journal while the context is open.

    Args:
        console: where to print; if it is not a terminal, there is no progress bar.

    Example:
        >>> import sys
        >>> from rich.console import Console
        >>> from kpipe.report import Progress
        >>> with Progress(Console(file=sys.stdout)) as progress:
        ...     progress.show({"event": "stage_skipped", "stage": "Data"})
        Data is cached
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: bars.TaskID | None = None

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, event: Event) -> None:
        """Show one event."""
        show = getattr(self, f"_{event['event']}", None)
        if show:
            show(event)

    def _stage_started(self, event: Event) -> None:
        print_line(
            self._console, f"{event['stage']} {'resumes' if event['continues'] else 'runs'}", "bold"
        )

    def _stage_skipped(self, event: Event) -> None:
        print_line(self._console, f"{event['stage']} is cached", "dim")

    def _stage_finished(self, event: Event) -> None:
        self._end_bar()

    def _note(self, event: Event) -> None:
        print_line(self._console, f"  {event['text']}", "yellow" if event.get("verdict") else "")

    def _wait(self, event: Event) -> None:
        stage = event.get("stage", "the run")
        print_line(self._console, f"{stage} {event['text']}", "yellow")

    def _epoch(self, event: Event) -> None:
        self._end_bar()
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in event["metrics"].items())
        print_line(
            self._console,
            f"  {event['what']}, epoch {event['epoch']}/{event['epochs']}:  {metrics}",
            "dim",
        )

    def _step(self, event: Event) -> None:
        if self._task is None:
            self._task = self._bars.add_task("", total=event["total"])
        self._bars.update(
            self._task,
            description=f"  {event['what']}",
            completed=event["done"],
            total=event["total"],
        )

    def _end_bar(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


@names_wrong_kinds
def models_table(folder: Path) -> Table | None:
    """Return the table of a run's exported models, or None if it exported none.

    Args:
        folder: the run's folder, with its `metrics.json` and `measured.json`.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.report import models_table
        >>> models_table(Path(".")) is None
        True
    """
    metrics = read_metrics(folder)
    if metrics is None:
        return None
    table = Table(
        title=f"{folder.parent.name}: {metrics['test_images']} test photos, by LiteRT, 1 thread",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("model", overflow="fold", ratio=1)
    for name in ("accuracy", "balanced", "M MACs", "M params", "MB", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in metrics["models"]:
        table.add_row(
            Text(printable(row["name"])),
            f"{row['accuracy']:.1%}",
            f"{row['balanced_accuracy']:.1%}",
            f"{row['macs'] / 1e6:.1f}",
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['size'] / 1e6:.2f}",
            f"{row['median_ms']:.2f}",
            style="bold" if row["file"] == metrics["final"] else "",
        )
    return table
