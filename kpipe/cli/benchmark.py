"""The benchmark command."""

from __future__ import annotations

from pathlib import Path

import click

from kpipe.cli.output import print_text

__all__ = ["benchmark"]


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="CPU threads for LiteRT.",
)
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Inferences to time for each file, one image each.",
)
def benchmark(models: tuple[Path, ...], threads: int, runs: int) -> None:
    """Time exported MODELS (.tflite files) alternately; ratios are relative to the first."""
    from kpipe.lite import compare

    results = compare(models, threads, runs)
    first = results[0]
    for path, result in zip(models, results, strict=True):
        print_text(f"{path}", bold=True)
        print_text(
            f"  median {result.median_ms:.2f} ms ({result.p5_ms:.2f} to {result.p95_ms:.2f}), "
            f"loaded in {result.initialization_ms:.1f} ms, "
            f"peak memory {result.peak_memory / 1e6:.1f} MB",
        )
        undelegated = ", ".join(result.undelegated_ops) or "none"
        print_text(
            f"  {result.size / 1e6:.2f} MB, gzip {result.gzip_size / 1e6:.2f} MB; "
            f"delegate partitions: {result.partitions}, undelegated operations: {undelegated}",
        )
        if result is not first:
            print_text(
                f"  relative to {models[0]}: time {result.ratio:.2f}, "
                f"memory {result.peak_memory / first.peak_memory:.2f}, "
                f"size {result.size / first.size:.2f}, "
                f"gzip {result.gzip_size / first.gzip_size:.2f}",
            )
    summary = f"{runs} alternating runs each, {threads} thread(s); ranges: 5th to 95th percentile"
    print_text(summary, dim=True)
