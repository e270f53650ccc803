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
        "Benchmark": "runtime.benchmarking",
        "Classifier": "runtime.classification",
        "Difference": "runtime.evaluation",
        "Evaluation": "runtime.evaluation",
        "LiteModel": "runtime.interpreter",
        "Prediction": "runtime.classification",
        "Selective": "export.selective",
        "add_metadata": "export.metadata",
        "benchmark": "runtime.benchmarking",
        "compare": "runtime.benchmarking",
        "convert": "export.conversion",
        "evaluate": "runtime.evaluation",
        "latency": "runtime.benchmarking",
        "quantize_selectively": "export.selective",
    },
)
