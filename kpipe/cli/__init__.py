"""The command line: `kpipe run | plan | check | preview | report | predict | benchmark | cache`."""

from kpipe.cli.entry import main
from kpipe.cli.pipeline_file import load_pipeline

__all__ = ["load_pipeline", "main"]
