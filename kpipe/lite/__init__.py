"""Keras model -> `.tflite` file -> predictions, accuracy, and latency.

Only conversion and quantization need Keras and TensorFlow. An application that runs a finished file
needs NumPy, Pillow, and ai-edge-litert alone.
"""

from kpipe.installation import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
