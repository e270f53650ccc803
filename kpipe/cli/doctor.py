"""The doctor command: what this installation and machine have."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from kpipe.cli.output import JSON, own_stdout, print_json
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
@JSON
def doctor(no_training: bool, root: Path, as_json: bool) -> None:
    """Say what this installation and machine have, and try a tiny training.

    Exits with 0 if kpipe works here, and with 1 after a fault.
    """
    from kpipe.starter.doctor import examine, examine_disk, try_training

    console, found = Console(quiet=as_json), []
    disk = examine_disk(root)
    # Without a folder for the log, TensorFlow's messages are on the terminal.
    log = log_native_stderr(root) if disk.state != "fault" else contextlib.nullcontext()
    with own_stdout(as_json), translate_disk_errors(root), log:
        for finding in itertools.chain([disk], examine()):
            found.append(_shown(console, finding))
        if not no_training and not _faults(found):
            found.append(_shown(console, try_training()))
    faults = _faults(found)
    if as_json:
        print_json("doctor", findings=[dataclasses.asdict(finding) for finding in found])
    summary = f"{faults} fault{'s' * (faults > 1)}" if faults else "kpipe works here"
    print_line(console, summary, "bold")
    if faults:
        raise SystemExit(1)


def _faults(found: Sequence[Finding]) -> int:
    return sum(finding.state == "fault" for finding in found)


def _shown(console: Console, finding: Finding) -> Finding:
    """Print a finding, and return it."""
    mark, style = _MARKS[finding.state]
    print_line(console, f"{mark}  {finding.name}: {finding.detail}", style)
    if finding.fix:
        print_line(console, f"    {finding.fix}")
    return finding
