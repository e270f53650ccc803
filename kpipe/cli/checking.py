"""The command that looks through photos before anything is learned from them: check."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from kpipe.cli.declaration import ROOT, SET, load_pipeline
from kpipe.cli.lines import line
from kpipe.core.store import translate_disk_errors
from kpipe.errors import DataError, PipelineError
from kpipe.report.terminal import Progress

if TYPE_CHECKING:
    from kpipe.data import Audit, Manifest
    from kpipe.stages import Data

__all__ = ["check"]

# What `--fix` writes.
_COLUMNS = ("path", "label")
_CHANGES = 10


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--image", default="", help="Of a table: the column of the files.")
@click.option("--label", default="", help="Of a table: the column of the labels.")
@click.option("--photos", default="", help="Of a table: the folder that its paths start from.")
@click.option("--csv", "options", multiple=True, metavar="NAME=VALUE", help="Of pandas.read_csv.")
@click.option("--fix", type=click.Path(path_type=Path), help="Write a cleaned table to this file.")
@click.option("--html", type=click.Path(path_type=Path), help="Write the page to this file.")
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
    """Look through DATA: folders of class folders, tables (CSV, TSV), or a pipeline file.

    Ends with 0 when nothing serious is found, with 1 when something is, with 2 when DATA cannot be
    looked through. No file of DATA is ever changed.
    """
    name, declared = _declared(data, settings, **table)
    _refuse_existing(fix)
    console = Console()
    with translate_disk_errors(root):
        manifest, audit = _audited(declared, root, console)
        page = html or root / "check" / name / "check.html"
        serious = _show(manifest, audit, page, name, console)
    if fix:
        _fix(audit, fix, console)
    if serious:
        raise SystemExit(1)


def _declared(
    data: tuple[Path, ...], settings: tuple[str, ...], options: tuple[str, ...], **columns: str
) -> tuple[str, Data]:
    """What to call the data, and its declaration."""
    from kpipe.stages import Data

    if len(data) == 1 and data[0].suffix == ".py":
        pipeline = load_pipeline(data[0]).with_settings(settings)
        stages = [stage for stage in pipeline.stages if isinstance(stage, Data)]
        if not stages or options or any(columns.values()):
            raise PipelineError(
                f"{data[0]} declares no Data" if not stages else "a pipeline declares its columns",
                fix="name the folder or table itself" if not stages else "change them by --set",
            )
        return pipeline.name, stages[0]
    if settings:
        raise PipelineError("--set changes a pipeline", received=", ".join(map(str, data)))
    absent = [path for path in data if not path.exists()]
    if absent:
        raise DataError(
            f"there is nothing at {', '.join(map(str, absent))}",
            expected="folders of class folders, tables (CSV, TSV), or a pipeline file",
        )
    if data[0].is_file() and not (columns["image"] or columns["label"]):
        columns = {**columns, **_usual(data[0])}
    declared = Data(
        source=tuple(map(str, data)),
        image=columns["image"],
        label=columns["label"],
        root=columns["photos"],
        csv=dict(map(_option, options)),
    )
    if problems := declared.validation_errors():
        raise PipelineError("\n    ".join(["this cannot be looked through:", *problems]))
    whole = data[0].resolve()
    return whole.stem if whole.is_file() else whole.name, declared


def _usual(table: Path) -> dict[str, str]:
    """The columns of a table that `--fix` wrote; of another, they must be named."""
    try:
        with table.open(encoding="utf-8-sig") as file:
            first = file.readline().strip()
    except (OSError, ValueError) as error:
        first = f"{type(error).__name__}: {error}"
    if not set(_COLUMNS) <= {cell.strip('"') for cell in re.split(r"[,;\t|]", first)}:
        raise DataError(
            f"{table} has no columns {' and '.join(map(repr, _COLUMNS))}",
            received=first,
            fix="name the columns of the files and of the labels: --image COLUMN --label COLUMN",
        )
    return dict(zip(("image", "label"), _COLUMNS, strict=True))


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def _refuse_existing(file: Path | None) -> None:
    if file and (file.exists() or file.is_symlink()):
        raise DataError(
            f"{file} is there already",
            expected="a new file for the cleaned table",
            fix="remove it first, or name another file",
        )


def _audited(declared: Data, root: Path, console: Console) -> tuple[Manifest, Audit]:
    from kpipe.data import audit, converted, problem_table
    from kpipe.stages.data import IMAGE_CACHE

    cache = root / ".cache" / "shared" / IMAGE_CACHE
    with Progress(console) as progress:

        def reading(done: int, total: int) -> None:
            progress.hear({"event": "step", "what": "reading", "done": done, "total": total})

        manifest = declared.manifest(max_unreadable=None, cache=cache, progress=reading)
        found = audit(manifest, cache=cache, progress=reading)
    told = problem_table(
        [
            *found.problems.itertuples(index=False, name=None),
            *converted(manifest, declared.background),
        ]
    )
    return manifest, dataclasses.replace(found, problems=told)


def _show(manifest: Manifest, audit: Audit, page: Path, title: str, console: Console) -> bool:
    """Whether there is something serious in what is shown."""
    from kpipe.report import write_audit
    from kpipe.report.audit_findings import common_folder, findings, statistics_lines
    from kpipe.report.audit_tables import classes_table, findings_table

    table = write_audit(page, title, manifest, audit)
    found = findings(audit.problems)
    console.print(classes_table(audit.classes, audit.imbalance))
    for name, text in statistics_lines(audit.statistics):
        line(console, f"  {name}: {text}")
    if found:
        console.print()
        console.print(findings_table(found, common_folder(manifest.table["path"].tolist())))
    serious = sum(len(one.rows) for one in found if one.serious)
    kinds = sum(one.serious for one in found)
    said = (
        f"{serious} findings of {kinds} kinds need a look" if serious else "nothing serious found"
    )
    line(console, f"{audit.photos} photos: {said}", "bold red" if serious else "bold green")
    line(console, f"page: {page}\nlist: {table}")
    return bool(serious)


def _fix(audit: Audit, file: Path, console: Console) -> None:
    from kpipe.data.manifest import write_table

    file.parent.mkdir(parents=True, exist_ok=True)
    cleaned = audit.cleaned()
    write_table(cleaned, file)
    changes = audit.changes
    line(console, f"{file}: {len(cleaned)} photos, {len(changes)} changes", "bold")
    for path, change in changes.head(_CHANGES).itertuples(index=False):
        line(console, f"  {path}: {change}")
    if len(changes) > _CHANGES:
        line(console, f"  and {len(changes) - _CHANGES} more, on the page")
    line(console, f'  read it by Data("{file}", image="path", label="label")')
