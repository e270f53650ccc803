"""Classify clothes in ten classes, or any folder of photos with one subfolder for each class.

kpipe run pipelines/clothing.py --set Data.source=FOLDER
"""

from kpipe import Pipeline
from kpipe.stages import Augment, Balance, Data, Ensemble, Export, FilterPrune, FineTune

pipeline = Pipeline(
    "clothing",
    [
        Data("data/clothing", image_size=160, split=(0.7, 0.15, 0.15)),
        Balance("class_weight"),
        Augment(
            flip="horizontal",
            rotate=0.05,
            brightness=0.2,
            contrast=0.2,
            color=0.2,
            blur=0.2,
            crop=0.8,
        ),
        FineTune("MobileNetV2", alpha=0.35),
        Ensemble(members=3, combine="average"),
        FilterPrune(macs=0.5),
        Export(quantize="int8"),
    ],
    seed=7,
)
