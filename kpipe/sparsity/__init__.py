"""TensorFlow Model Optimization for Keras 3 models, which it refuses itself.

    Keras 3 model -> tf_keras twin -> TFMOT masks weights -> Keras 3 model with zeros

Zeros make a download smaller after compression, and nothing faster. `kpipe.prune` removes
filters for speed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
