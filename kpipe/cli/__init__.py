"""The command line: `kpipe run | plan | check | preview | report | predict`."""

from kpipe.cli.declaration import load_pipeline
from kpipe.cli.entry import main

__all__ = ["load_pipeline", "main"]
