"""Measure how close splits come to the requested fractions, and how many photos move.

    python benchmarks/splits.py [--classes 200] [--photos 20 60 200 1000]

Each class is one draw: `--classes` classes of `--photos` photos each are split 70 : 15 : 15,
then again with 1, 10 and 50 % more photos. A row shows the test photos of a class (least, 5th to
95th percentile, most), and how many of its photos each addition moves (mean, most). The rules:

    hash           `kpipe.data.split`: the hash of the content decides
    min_photos=N   the same with N photos of each class in each split, for N of half, two thirds and
                   all of 15 %; and with the first split as `previous`
    rank           sort the photos of a class by their hash and cut the list at 70 and 85 %
    rank in blocks the same in blocks of 20 to 40 photos, which the first bits of the hash name
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from kpipe.data import SPLITS, Manifest, split
from kpipe.data.manifest import problem_table

FRACTIONS, GROWTH, BLOCK = (0.7, 0.15, 0.15), (0.01, 0.1, 0.5), 20
Rule = Callable[[Manifest], pd.Series]


def draw(classes: int, photos: int) -> Manifest:
    """Return photos that exist only as digests, those of each class numbered in `place`."""
    names = [f"class {number:03}" for number in range(classes)]
    table = pd.DataFrame({"label": np.repeat(names, photos)})
    table["place"] = np.tile(np.arange(photos), classes)
    keys = table["label"] + table["place"].astype("str")
    table["sha256"] = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
    table = table.assign(path=keys, split="", width=1, height=1)
    return Manifest(table, tuple(names), problem_table())


def first(manifest: Manifest, photos: int) -> Manifest:
    """Return the first photos of each class."""
    table = manifest.table[manifest.table["place"] < photos].reset_index(drop=True)
    return dataclasses.replace(manifest, table=table)


def by_kpipe(manifest: Manifest, **options: int | Manifest) -> pd.Series:
    made = split(manifest, FRACTIONS, **options).table  # type: ignore[arg-type]
    return made.set_index("sha256")["split"]


def by_rank(manifest: Manifest, blocks: bool = False) -> pd.Series:
    table = manifest.table
    number = table["sha256"].str[:12].map(lambda digits: int(digits, 16) / 16**12)
    keys = [table["label"]]
    if blocks:
        sizes = table.groupby("label")["label"].transform("size")
        counts = 2 ** np.floor(np.log2(np.maximum(sizes / BLOCK, 1)))
        keys.append(np.floor(number * counts))
    groups = number.groupby(keys)
    share = (groups.rank() - 0.5) / groups.transform("size")
    places = np.searchsorted(np.cumsum(FRACTIONS)[:-1], share, side="right")
    return pd.Series(np.array(SPLITS)[places], index=table["sha256"])


def measure(name: str, rule: Rule, later: Rule, photos: int, every: Manifest) -> None:
    """Print a row; `later` splits the grown set."""
    start = first(every, photos)
    places = rule(start)
    label = start.table.set_index("sha256")["label"]
    counts = pd.crosstab(label, places[label.index]).reindex(columns=SPLITS, fill_value=0)
    test = counts["test"]
    low, high = np.percentile(test, (5, 95))
    cells = [name, f"{test.min()}, {low:.0f} to {high:.0f}, {test.max()}"]
    cells.append(" / ".join(f"{mean:.1f}" for mean in counts.mean()))
    for growth in GROWTH:
        grown = first(every, photos + max(1, round(photos * growth)))
        moved = (later(grown)[places.index] != places).groupby(label).sum()
        cells.append(f"{moved.mean():.2f} ({moved.max()})")
    print(f"| {photos} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--photos", type=int, nargs="+", default=[20, 60, 200, 1000])
    options = parser.parse_args()
    print("| photos | rule | test photos | mean of each split | 1 % more move | 10 % | 50 % |")
    print("|---|---|---|---|---|---|---|")
    for photos in options.photos:
        every = draw(options.classes, photos + max(1, photos // 2))
        share = round(photos * FRACTIONS[-1])
        measure("hash", by_kpipe, by_kpipe, photos, every)
        for least in sorted({max(2, share // 2), max(2, share * 2 // 3), share}):
            rule = partial(by_kpipe, min_photos=least)
            measure(f"min_photos={least}", rule, rule, photos, every)
        earlier = split(first(every, photos), FRACTIONS, min_photos=share)
        measure(
            f"min_photos={share}, previous=", rule, partial(rule, previous=earlier), photos, every
        )
        measure("rank", by_rank, by_rank, photos, every)
        blocks = partial(by_rank, blocks=True)
        measure("rank in blocks", blocks, blocks, photos, every)


if __name__ == "__main__":
    main()
