"""The command that times exported models: benchmark."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from kpipe.cli.lines import line

__all__ = ["benchmark"]


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processor threads that LiteRT may use.",
)
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Single images to time by each file.",
)
def benchmark(models: tuple[Path, ...], threads: int, runs: int) -> None:
    """Time exported MODELS (.tflite files) in turns; ratios are to the first."""
    from kpipe.lite import compare

    found = compare(models, threads, runs)
    console = Console()
    for path, one in zip(models, found, strict=True):
        line(console, f"{path}", "bold")
        line(
            console,
            f"  median {one.median_ms:.2f} ms ({one.p5_ms:.2f} to {one.p95_ms:.2f}), "
            f"opened in {one.initialization_ms:.1f} ms, peak memory {one.peak_memory / 1e6:.1f} MB",
        )
        left = ", ".join(one.undelegated_ops) or "nothing"
        line(
            console,
            f"  {one.size / 1e6:.2f} MB, gzip {one.gzip_size / 1e6:.2f} MB; "
            f"delegate: {one.partitions} part(s), outside it: {left}",
        )
        if one is not found[0]:
            first = found[0]
            line(
                console,
                f"  over {models[0]}: time {one.ratio:.2f}, "
                f"memory {one.peak_memory / first.peak_memory:.2f}, "
                f"size {one.size / first.size:.2f}, gzip {one.gzip_size / first.gzip_size:.2f}",
            )
    line(console, f"{runs} runs of each in turns, {threads} thread(s), 5 to 95 % of them", "dim")
