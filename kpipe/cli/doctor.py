"""The doctor command: what this installation and machine have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from kpipe.cli.pipeline_file import ROOT
from kpipe.cli.stderr_log import log_native_stderr
from kpipe.core.disk_errors import translate_disk_errors
from kpipe.report.terminal import print_line

if TYPE_CHECKING:
    from kpipe.starter.doctor import Finding

__all__ = ["doctor"]

_MARKS = {"good": ("ok", "green"), "notice": ("--", "yellow"), "fault": ("!!", "bold red")}


@click.command()
@click.option("--no-training", is_flag=True, help="Train nothing.")
@ROOT
def doctor(no_training: bool, root: Path) -> None:
    """Say what this installation and machine have, and try a tiny training.

    Exits with 0 if kpipe works here, and with 1 after a fault.
    """
    from kpipe.starter.doctor import examine, try_training

    console, faults = Console(), 0
    with translate_disk_errors(root), log_native_stderr(root):
        for finding in examine(root):
            faults += _show(console, finding)
        if not no_training and not faults:
            faults += _show(console, try_training())
    summary = f"{faults} fault{'s' * (faults > 1)}" if faults else "kpipe works here"
    print_line(console, summary, "bold")
    if faults:
        raise SystemExit(1)


def _show(console: Console, finding: Finding) -> bool:
    """Print a finding; return whether it is a fault."""
    mark, style = _MARKS[finding.state]
    print_line(console, f"{mark}  {finding.name}: {finding.detail}", style)
    if finding.fix:
        print_line(console, f"    {finding.fix}")
    return finding.state == "fault"
