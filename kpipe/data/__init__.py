"""Photos and labels: from a messy folder or table to the batches that `model.fit` sees.

from_folder / from_csv / from_dataframe -> Manifest -> split -> decode -> dataset
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
