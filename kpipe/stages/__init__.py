"""The declarative face: what a pipeline file is written with.

Data -> "data"                             photos, labels, splits, decoded once
Balance -> "balance"                       class weights, or which photos an epoch shows
Augment -> "augmentation"                  what is drawn for each photo in each epoch
FineTune -> "model"                        a pretrained network, its last layers retrained
Ensemble -> "ensemble"                     several of them, combined in one graph
FilterPrune -> "model"                     a smaller one
MagnitudePrune, ClusterWeights, QuantizeAware -> "model"      one that compresses, or stands int8
Export                                     the `.tflite` files, run and measured
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
