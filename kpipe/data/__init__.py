"""Photos and labels: from a messy folder or table to the batches that `model.fit` sees.

from_folder / from_csv / from_dataframe -> Manifest -> split -> decode -> dataset
"""

from kpipe.installation import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
