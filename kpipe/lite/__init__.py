"""Keras model -> `.tflite` bytes -> answers, accuracy and milliseconds.

Only `conversion` needs Keras and TensorFlow. An application that carries a finished file imports
the rest with NumPy, Pillow and ai-edge-litert alone.
"""

from kpipe._lazy import lazy

__all__ = [
    "Benchmark",
    "Classifier",
    "Difference",
    "Evaluation",
    "LiteModel",
    "Prediction",
    "Selective",
    "add_metadata",
    "benchmark",
    "compare",
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
        "Difference": "evaluation",
        "Evaluation": "evaluation",
        "LiteModel": "interpreter",
        "Prediction": "classification",
        "Selective": "selective",
        "add_metadata": "metadata",
        "benchmark": "benchmarking",
        "compare": "benchmarking",
        "convert": "conversion",
        "evaluate": "evaluation",
        "latency": "benchmarking",
        "quantize_selectively": "selective",
    },
)
