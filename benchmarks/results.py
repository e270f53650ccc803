"""Rows of a benchmark in a JSON Lines file, so that no measurement is repeated.

A grid of trials has a row for each of its recipes, photo sets and seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Read all rows; an empty list if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def add_row(path: Path, row: Row) -> None:
    """Append a row."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def grid_parser(
    title: str,
    results: str,
    recipes: Iterable[str],
    sets: Sequence[str],
    actions: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Return the parser of a script that runs a grid of trials and prints its table.

    Args:
        title: what the script does.
        results: the default name of the file of rows.
        recipes: names of the recipes.
        sets: names of the photo sets.
        actions: further actions than "run" and "table".
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("action", choices=[*actions, "run", "table"])
    parser.add_argument("photos", type=Path, nargs="?", default=Path("photos"))
    parser.add_argument("--weights")
    parser.add_argument("--results", type=Path, default=Path(results))
    parser.add_argument("--only", nargs="+", choices=list(recipes), default=list(recipes))
    parser.add_argument("--sets", nargs="+", choices=sets, default=list(sets))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    return parser


def grid_script(
    title: str,
    results: str,
    recipes: Iterable[str],
    sets: Sequence[str],
    trial: Callable[[str, str, int, Path, str], Row],
    table: Callable[[Path], None],
    others: Mapping[str, Callable[[Path], None]] | None = None,
) -> None:
    """Do what the command line asks for: run the trials of a grid, or print their table.

    Args:
        title: see `grid_parser`, as for the next three.
        results: the default name of the file of rows.
        recipes: names of the recipes.
        sets: names of the photo sets.
        trial: (set, recipe, seed, photos, weights) -> a row that names the first three.
        table: prints the table of the rows in a file.
        others: name of a further action -> what does it, given the folder of photos.
    """
    others = others or {}
    asked = grid_parser(title, results, recipes, sets, list(others)).parse_args()
    if asked.action in others:
        others[asked.action](asked.photos)
    elif asked.action == "table":
        table(asked.results)
    else:
        run_grid(asked, lambda *of: trial(*of, asked.photos, asked.weights))


def run_grid(asked: argparse.Namespace, trial: Callable[[str, str, int], Row]) -> None:
    """Run the trials that have no row yet, and add and print theirs.

    Args:
        asked: from `grid_parser`.
        trial: (set, recipe, seed) -> a row that names them.
    """
    done = {(row["set"], row["recipe"], row["seed"]) for row in read_rows(asked.results)}
    for seed in asked.seeds:
        for recipe in asked.only:
            for name in asked.sets:
                if (name, recipe, seed) not in done:
                    row = trial(name, recipe, seed)
                    add_row(asked.results, row)
                    print(json.dumps(row), flush=True)
