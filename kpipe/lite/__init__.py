"""Keras model -> `.tflite` file -> predictions, accuracy, and latency.

Only `export` and `int8` need Keras and TensorFlow. An application that runs a finished file imports
the rest with NumPy, Pillow, and ai-edge-litert alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
