"""The check command: audit photos before training."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from kpipe.cli.pipeline_file import ROOT, SET, load_pipeline
from kpipe.core.disk_errors import translate_disk_errors, translate_file_errors
from kpipe.errors import DataError, PipelineError
from kpipe.report.terminal import Progress, print_line

if TYPE_CHECKING:
    from kpipe.data import Audit, Manifest
    from kpipe.stages import Data

__all__ = ["check"]

# The columns that `--fix` writes.
_COLUMNS = ("path", "label")
_CHANGES = 10


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--image", default="", help="Column of the photos in a table.")
@click.option("--label", default="", help="Column of the labels in a table.")
@click.option("--photos", default="", help="Folder that the paths in a table are relative to.")
@click.option(
    "--csv", "options", multiple=True, metavar="NAME=VALUE", help="Pass to pandas.read_csv."
)
@click.option("--fix", type=click.Path(path_type=Path), help="Write a cleaned table to this file.")
@click.option("--html", type=click.Path(path_type=Path), help="Write the HTML page to this file.")
@SET
@ROOT
def check(
    data: tuple[Path, ...],
    fix: Path | None,
    html: Path | None,
    settings: tuple[str, ...],
    root: Path,
    **table: Any,
) -> None:
    """Audit DATA: folders of class folders, tables (CSV, TSV), or a pipeline file.

    Exits with 0 if there are no serious findings, with 1 if there are, and with 2 if DATA cannot be
    audited. No file of DATA is ever changed.
    """
    name, declared = _declaration(data, settings, **table)
    _refuse_existing(fix)
    console = Console()
    page = html or root / "check" / name / "check.html"
    with translate_disk_errors(root):
        # Before the photos are read, so that no work is lost.
        shared = root / ".cache" / "shared"
        shared.mkdir(parents=True, exist_ok=True)
        manifest, audit = _audit(declared, shared, console)
    with translate_file_errors(page, "--html"):
        serious = _show(manifest, audit, page, name, console)
    if fix:
        with translate_file_errors(fix, "--fix"):
            _fix(audit, fix, console)
    if serious:
        raise SystemExit(1)


def _declaration(
    data: tuple[Path, ...], settings: tuple[str, ...], options: tuple[str, ...], **columns: str
) -> tuple[str, Data]:
    """Return a name for the data, and its declaration."""
    from kpipe.stages import Data

    if len(data) == 1 and data[0].suffix == ".py":
        pipeline = load_pipeline(data[0]).with_settings(settings)
        stages = [stage for stage in pipeline.stages if isinstance(stage, Data)]
        if not stages or options or any(columns.values()):
            raise PipelineError(
                f"{data[0]} declares no Data" if not stages else "a pipeline declares its columns",
                fix="pass the folder or table itself" if not stages else "change them with --set",
            )
        return pipeline.name, stages[0]
    if settings:
        raise PipelineError("--set is for pipeline files only", received=", ".join(map(str, data)))
    absent = [path for path in data if not path.exists()]
    if absent:
        raise DataError(
            f"no such file or folder: {', '.join(map(str, absent))}",
            expected="folders of class folders, tables (CSV, TSV), or a pipeline file",
        )
    if data[0].is_file() and not (columns["image"] or columns["label"]):
        columns = {**columns, **_default_columns(data[0])}
    declared = Data(
        source=tuple(map(str, data)),
        image=columns["image"],
        label=columns["label"],
        root=columns["photos"],
        csv=dict(map(_parse_option, options)),
    )
    if errors := declared.validation_errors():
        raise PipelineError("\n    ".join(["the data cannot be audited:", *errors]))
    first = data[0].resolve()
    return first.stem if first.is_file() else first.name, declared


def _default_columns(table: Path) -> dict[str, str]:
    """Return the columns of a table that `--fix` wrote; those of other tables must be named."""
    try:
        with table.open(encoding="utf-8-sig") as file:
            header = file.readline().strip()
    except (OSError, ValueError) as error:
        header = f"{type(error).__name__}: {error}"
    if not set(_COLUMNS) <= {cell.strip('"') for cell in re.split(r"[,;\t|]", header)}:
        raise DataError(
            f"{table} has no columns {' and '.join(map(repr, _COLUMNS))}",
            received=header,
            fix="name the columns of the photos and the labels: --image COLUMN --label COLUMN",
        )
    return dict(zip(("image", "label"), _COLUMNS, strict=True))


def _parse_option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def _refuse_existing(file: Path | None) -> None:
    if file and (file.exists() or file.is_symlink()):
        raise DataError(
            f"{file} already exists",
            expected="a new file for the cleaned table",
            fix="remove it first, or pass another file",
        )


def _audit(declared: Data, shared: Path, console: Console) -> tuple[Manifest, Audit]:
    from kpipe.data import audit, conversion_notes, problem_table
    from kpipe.stages.data import IMAGE_CACHE

    cache = shared / IMAGE_CACHE
    with Progress(console) as progress:

        def show(done: int, total: int) -> None:
            progress.show({"event": "step", "what": "reading", "done": done, "total": total})

        manifest = declared.manifest(max_unreadable=None, cache=cache, progress=show)
        result = audit(manifest, cache=cache, progress=show)
    rows = result.problems.itertuples(index=False, name=None)
    problems = problem_table([*rows, *conversion_notes(manifest, declared.background)])
    return manifest, dataclasses.replace(result, problems=problems)


def _show(manifest: Manifest, audit: Audit, page: Path, title: str, console: Console) -> bool:
    """Print the findings and write the page; return whether any finding is serious."""
    from kpipe.report import write_audit
    from kpipe.report.audit_findings import common_folder, findings, statistics_lines
    from kpipe.report.audit_tables import classes_table, findings_table

    table = write_audit(page, title, manifest, audit)
    found = findings(audit.problems)
    console.print(classes_table(audit.classes, audit.imbalance))
    for name, text in statistics_lines(audit.statistics):
        print_line(console, f"  {name}: {text}")
    if found:
        console.print()
        console.print(findings_table(found, common_folder(manifest.table["path"].tolist())))
    serious = sum(len(one.rows) for one in found if one.serious)
    kinds = sum(one.serious for one in found)
    summary = f"{serious} serious findings of {kinds} kinds" if serious else "no serious findings"
    style = "bold red" if serious else "bold green"
    print_line(console, f"{audit.photos} photos: {summary}", style)
    print_line(console, f"page: {page}\nlist: {table}")
    return bool(serious)


def _fix(audit: Audit, file: Path, console: Console) -> None:
    from kpipe.data.manifest import write_table

    file.parent.mkdir(parents=True, exist_ok=True)
    cleaned = audit.cleaned()
    write_table(cleaned, file, spreadsheet=True)
    changes = audit.changes
    print_line(console, f"{file}: {len(cleaned)} photos, {len(changes)} changes", "bold")
    for path, change in changes.head(_CHANGES).itertuples(index=False):
        print_line(console, f"  {path}: {change}")
    if len(changes) > _CHANGES:
        print_line(console, f"  and {len(changes) - _CHANGES} more on the page")
    print_line(console, f'  use it as Data("{file}", image="path", label="label")')
