"""Keras model -> `.tflite` bytes -> answers, accuracy and milliseconds.

Only `conversion` needs Keras and TensorFlow. An application that carries a finished file imports
the rest with NumPy, Pillow and ai-edge-litert alone.
"""

from kpipe._lazy import lazy

__all__ = [
    "Benchmark",
    "Classifier",
    "Evaluation",
    "LiteModel",
    "Prediction",
    "Selective",
    "add_metadata",
    "benchmark",
    "convert",
    "evaluate",
    "latency",
    "quantize_selectively",
]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "Benchmark": "benchmarking",
        "Classifier": "classification",
        "Evaluation": "evaluation",
        "LiteModel": "interpreter",
        "Prediction": "classification",
        "Selective": "selective",
        "add_metadata": "metadata",
        "benchmark": "benchmarking",
        "convert": "conversion",
        "evaluate": "evaluation",
        "latency": "benchmarking",
        "quantize_selectively": "selective",
    },
)
