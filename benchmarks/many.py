"""Measure reports of runs with many classes, and `kpipe check` of tables with many rows per photo.

    python benchmarks/many.py [--classes 10 200 1000] [--files 20000] [--rows 10]

    report   `kpipe.report.write_report` of a run whose file was tested on 50 photos of each class
    check    the whole command on a table with a row for each file, and on tables that name each
             file in several rows, with one label or with several (small drawings, a fresh cache
             for each table)

Processor time is shown beside wall time, since other work on the machine disturbs it less.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

COMMAND = [sys.executable, "-P", "-c", "from kpipe.cli import main; main()"]
LABELS, TESTED = 20, 50


def fake_run(folder: Path, classes: int) -> Path:
    """Write the journal and metrics of a run that confuses neighboring classes most."""
    rng = np.random.default_rng(0)
    confusion = np.zeros((classes, classes), int)
    for true in range(classes):
        near = (true + rng.geometric(0.3, 10)) % classes
        predicted = np.concatenate([np.full(TESTED - 15, true), near, rng.integers(0, classes, 5)])
        np.add.at(confusion[true], predicted, 1)
    model = {
        "file": "model.tflite",
        "name": "MobileNetV2",
        "accuracy": confusion.trace() / confusion.sum(),
        "confusion": confusion.tolist(),
        **dict.fromkeys(("balanced_accuracy", "keras_accuracy", "agreement"), 0.7),
        **dict.fromkeys(("macs", "parameters", "size", "gzip_size"), 1_000_000),
        **dict.fromkeys(("median_ms", "p95_ms"), 1.0),
    }
    metrics = {
        "seed": 0,
        "image_size": 160,
        "classes": [f"species {number:04}" for number in range(classes)],
        "test_images": int(confusion.sum()),
        "final": "model.tflite",
        "models": [model],
    }
    folder.mkdir(parents=True)
    event = {"time": "2026-01-31T12:00:00+00:00", "event": "run_started"}
    (folder / "journal.jsonl").write_text(json.dumps(event) + "\n")
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def report(classes: int, scratch: Path) -> None:
    from kpipe.report import write_report

    folder = fake_run(scratch / f"run-{classes}", classes)
    start = time.perf_counter(), time.process_time()
    size = write_report(folder).stat().st_size
    wall, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    print(f"| {classes} | {wall:.1f} s | {processor:.1f} s | {size / 1e6:.2f} MB |", flush=True)


def draw(folder: Path, files: int) -> list[str]:
    """Write small drawings, no two alike, a thousand in each folder."""
    rng = np.random.default_rng(0)
    names = [f"{place // 1000:03}/{place:06}.jpg" for place in range(files)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((96, 96), Image.Resampling.BICUBIC).save(folder / name, quality=85)
    return names


def check(files: int, rows: int, scratch: Path) -> None:
    names = draw(scratch / "photos", files)
    # The image cache does not trust files that changed within the last two seconds.
    time.sleep(3)
    tables = {
        f"{files:,} rows": [(name, place % LABELS) for place, name in enumerate(names)],
        f"{files * rows:,} rows, one label per file": [
            (name, place % LABELS) for place, name in enumerate(names) for _ in range(rows)
        ],
        f"{files * rows:,} rows, {rows} labels per file": [
            (name, (place + row) % LABELS)
            for place, name in enumerate(names)
            for row in range(rows)
        ],
    }
    first = np.ones(2)
    for number, (title, table) in enumerate(tables.items()):
        file = scratch / f"{number}.csv"
        file.write_text("\n".join(["path,label", *(f"photos/{path},{of}" for path, of in table)]))
        start = np.array([time.perf_counter(), processor_time()])
        arguments = ["check", str(file), "--root", str(scratch / f"root-{number}")]
        subprocess.run([*COMMAND, *arguments], check=False, stdout=subprocess.DEVNULL)
        taken = np.array([time.perf_counter(), processor_time()]) - start
        first = first if number else taken
        wall, processor = taken / first
        cells = f"{taken[0]:.1f} s | {taken[1]:.1f} s | {wall:.2f} | {processor:.2f}"
        print(f"| {title} | {cells} |", flush=True)


def processor_time() -> float:
    """Return the seconds that ended child processes took from the processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="*", default=[10, 200, 1000])
    parser.add_argument("--files", type=int, default=20_000, help="0: no check")
    parser.add_argument("--rows", type=int, default=10, help="rows of each file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print("| classes | wall time of the report | processor time | size |\n|---|---|---|---|")
        for classes in options.classes:
            report(classes, Path(scratch))
        if options.files:
            print("\n| table | wall time of the check | processor time | ratio | of processor |")
            print("|---|---|---|---|---|")
            check(options.files, options.rows, Path(scratch))


if __name__ == "__main__":
    main()
