"""Photos and labels: from a messy folder or table to the batches that `model.fit` sees.

from_folder / from_csv / from_dataframe -> Manifest -> split -> decode -> dataset
"""

from kpipe._lazy import lazy

__all__ = [
    "SPLITS",
    "Augmenter",
    "Manifest",
    "Training",
    "class_weight",
    "dataset",
    "decode",
    "from_csv",
    "from_dataframe",
    "from_folder",
    "load_image",
    "photos_of_csv",
    "split",
    "steps",
]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "SPLITS": "manifest",
        "Augmenter": "augmentation",
        "Manifest": "manifest",
        "Training": "input",
        "class_weight": "balance",
        "dataset": "input",
        "decode": "decoding",
        "from_csv": "sources",
        "from_dataframe": "sources",
        "from_folder": "sources",
        "load_image": "decoding",
        "photos_of_csv": "sources",
        "split": "splitting",
        "steps": "input",
    },
)
