"""TensorFlow Model Optimization (TFMOT) for Keras 3 models, which it does not support itself.

    Keras 3 model -> tf_keras twin -> TFMOT masks weights -> Keras 3 model with zeros

Zeros make a compressed download smaller, not the model faster: for speed, `kpipe.prune` removes
filters.
"""

from kpipe.installation import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
