"""The cache command."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kpipe.cli.pipeline_file import ROOT
from kpipe.core.disk_errors import translate_disk_errors
from kpipe.core.inventory import Stored, list_results, remove_results, run_folders
from kpipe.errors import StoreError
from kpipe.report.terminal import print_line

__all__ = ["cache"]


@click.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--remove", is_flag=True, help="Show what no run needs, and the given RUNs.")
@click.option("--yes", is_flag=True, help="With --remove: remove it.")
@ROOT
def cache(runs: tuple[str, ...], remove: bool, yes: bool, root: Path) -> None:
    """List the results of stages, with size, age, and the runs that need them.

    A run needs a result if its journal names it as the newest result of a stage. `--remove --yes`
    removes the results that no run needs; a RUN, such as clothing/0123456789ab, is removed together
    with the results that only it needs.
    """
    if (runs or yes) and not remove:
        raise StoreError(
            "RUN and --yes are for --remove",
            received=" ".join([*runs, *["--yes"] * yes]),
            fix="kpipe cache --remove " + shlex.join(runs),
        )
    console = Console()
    with translate_disk_errors(root):
        folders = run_folders(root, runs)
        if not remove:
            _show_all(list_results(root), root, console)
            return
        if yes:
            unneeded = remove_results(root, folders)
        else:
            unneeded = [one for one in list_results(root, without=folders) if not one.runs]
        _show(unneeded, console)
        for folder in folders:
            print_line(console, f"run {folder}")
        results, runs_too = _count(len(unneeded), "result"), _count(len(folders), "run")
        what = f"{results}, {_megabytes(unneeded)}, and {runs_too}"
        if not (unneeded or folders):
            print_line(console, "nothing to remove: runs need every result", "bold")
        elif yes:
            print_line(console, f"removed {what}", "bold")
        else:
            print_line(console, f"would remove {what}; add --yes to remove them", "bold")


def _show_all(stored: Sequence[Stored], root: Path, console: Console) -> None:
    _show(stored, console)
    print_line(console, f"{_count(len(stored), 'result')}, {_megabytes(stored)}", "bold")
    unneeded = [one for one in stored if not one.runs]
    if unneeded:
        command = "kpipe cache --remove" + f" --root {shlex.quote(str(root))}" * (
            root != Path("saved_models")
        )
        print_line(console, f"no run needs {len(unneeded)}, {_megabytes(unneeded)}: {command}")
    shared = root / ".cache" / "shared"
    if shared.exists():
        print_line(console, f"not counted: {shared}, which may be deleted at any time", "dim")


def _show(stored: Sequence[Stored], console: Console) -> None:
    if not stored:
        return
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("result", no_wrap=True)
    table.add_column("stage")
    table.add_column("state")
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("needed by", overflow="fold")
    for one in stored:
        table.add_row(
            one.key[:12],
            Text(one.stage or "unknown"),
            one.state,
            f"{one.size / 1e6:.2f}",
            _age(time.time() - one.modified),
            Text(", ".join(one.runs) or "no run"),
        )
    console.print(table)


def _megabytes(stored: Sequence[Stored]) -> str:
    return f"{sum(one.size for one in stored) / 1e6:.2f} MB"


def _age(seconds: float) -> str:
    """Return a duration in its largest whole unit, such as "3 days"."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return _count(int(seconds // length), unit)
    return "now"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
