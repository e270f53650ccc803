"""Measure how many planted defects `kpipe check` finds among real photos, and how long it takes.

    python benchmarks/check.py FOLDER ... [--plant 20] [--photos 2000] [--files 20000]

FOLDER holds class folders, at any depth. The script copies a sample of its photos, audits it,
plants known defects of every kind, and audits it again. The first table shows what was found. Then
follow the findings that were neither planted nor there before (false alarms), and those among the
original photos, which only a human can judge. With --files, the last row shows how long `kpipe
check` takes as a whole process, the first and the second time, on that many unique crops of the
same photos.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from PIL import Image
from planting import SEED, Planter

from kpipe.data import audit, from_folder

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def sample(source: Path, folder: Path, photos: int) -> None:
    """Copy a random sample of photos into `folder/class/`."""
    files = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in SUFFIXES]
    if photos < len(files):
        files = sorted(random.Random(SEED).sample(files, photos))
    for number, path in enumerate(files):
        target = folder / path.parent.name / f"{number:06}{path.suffix.lower()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def findings(folder: Path) -> dict[str, dict[str, str]]:
    """Return {kind: {path below the folder, or the detail where there is no path: detail}}."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    problems = audit(from_folder(folder, max_unreadable=None)).problems
    for path, kind, detail in problems.itertuples(index=False):
        name = str(Path(path).relative_to(folder)) if path else detail
        found[kind][name] = detail
    return found


def compare(source: Path, photos: int, number: int) -> None:
    """Print how many planted defects are found in a copy of one folder."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "photos"
        sample(source, folder, photos)
        before = findings(folder)
        table = from_folder(folder, max_unreadable=None).table
        names = table["path"].map(lambda path: str(Path(path).relative_to(folder)))
        groups = names.groupby(table["similar"]).apply(list).tolist()
        planter = Planter(folder, groups, number)
        planter.plant()
        after = findings(folder)
        print(f"\n## {source.name}: {len(table)} photos\n")
        print("| planted | kind | found |\n|---|---|---|")
        for (what, kind), plants in planter.plants.items():
            named = after.get(kind, {})
            hits = sum(any(is_named(name, named) for name in names) for names in plants)
            print(f"| {what} | {kind} | {hits} of {len(plants)} |")
        alarms = Counter(
            kind
            for kind, named in after.items()
            for name in named.keys() - before.get(kind, {}).keys()
            if not any(is_named(touched, {name: ""}) for touched in planter.touched)
        )
        false = {kind: count for kind, count in alarms.items() if count}
        print(f"\nfalse alarms among {len(table)} photos: {false or 'none'}")
        print(f"among the original photos: { {kind: len(each) for kind, each in before.items()} }")


def is_named(plant: str, named: dict[str, str]) -> bool:
    """Return whether a path is among those named, or a label begins a detail about classes."""
    return plant in named or any(detail.startswith(repr(plant)) for detail in named)


def crop(sources: list[Path], folder: Path, number: int) -> None:
    """Write unique files: square crops of a third of a photo's side, elsewhere in each round."""
    files = [
        path
        for source in sources
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    for count in range(number):
        path = files[count % len(files)]
        round_ = count // len(files)
        image = Image.open(path).convert("RGB")
        side = min(image.size) // 3
        column, row = round_ % 3, round_ // 3 % 3
        left, top = column * (image.width - side) // 2, row * (image.height - side) // 2
        target = folder / path.parent.name / f"{count:06}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        piece = image.crop((left, top, left + side, top + side))
        piece.resize((224, 224), Image.Resampling.BICUBIC).save(target, quality=88)


def clock(sources: list[Path], number: int) -> None:
    """Print how long the whole command takes, the first and the second time."""
    command = str(Path(sys.executable).parent / "kpipe")
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "photos"
        crop(sources, folder, number)
        # The image cache does not trust files that changed within the last two seconds.
        time.sleep(3)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            arguments = [command, "check", str(folder), "--root", str(Path(base) / "root")]
            subprocess.run(arguments, check=False, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
        print(f"\n| files | first | second | ratio |\n|---|---|---|---|\n| {number} |", end="")
        print(f" {seconds[0]:.1f} s | {seconds[1]:.2f} s | {seconds[1] / seconds[0]:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--plant", type=int, default=20, help="plants of each kind; 0: none")
    parser.add_argument("--photos", type=int, default=2000, help="of each folder")
    parser.add_argument("--files", type=int, default=0, help="to take the time on")
    options = parser.parse_args()
    if options.plant:
        for folder in options.folders:
            compare(folder, options.photos, options.plant)
    if options.files:
        clock(options.folders, options.files)


if __name__ == "__main__":
    main()
