"""Decode photos and batch them for `fit`, `evaluate` and `predict`.

dataset   <- epochs (which photos, in which order) <- training_options
          <- fetching (pixels inside a graph)      <- decoding (pixels of a file)
contact_sheet   photos beside their augmented views
"""

__all__: list[str] = []
