"""The stages that a pipeline file declares.

Data -> "data"                             photos, labels and splits, decoded once
Balance -> "balance"                       class weights, or which photos an epoch shows
Augment -> "augmentation"                  random changes of each photo in each epoch
FineTune -> "model"                        a pretrained network, trained on the user's classes
Ensemble -> "ensemble"                     several networks combined in one graph; of a list of
                                           FineTunes also "model", the best one, if there is none
Distill -> "model"                         a smaller network that learns from a larger one
FilterPrune -> "model"                     a smaller and faster network
MagnitudePrune, ClusterWeights -> "model"  a network that compresses better
QuantizeAware -> "model"                   a network that loses less in int8
Export                                     `.tflite` files, evaluated and benchmarked
"""

from kpipe.installation import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
