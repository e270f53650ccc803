"""TensorFlow Model Optimization for Keras 3 models, which it refuses itself.

    Keras 3 model -> tf_keras twin -> TFMOT masks weights -> Keras 3 model with zeros

Zeros make a download smaller after compression, and nothing faster. `kpipe.prune` removes
filters for speed.
"""

from kpipe._lazy import lazy

__all__ = [
    "ConstantSparsity",
    "KeepZeros",
    "PolynomialSparsity",
    "TrainingSettings",
    "cluster_weights",
    "layer_mapping",
    "prune_magnitude",
    "sparsity_of",
    "to_keras",
    "to_tf_keras",
    "train_quantized",
    "values_of",
]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "ConstantSparsity": "magnitude",
        "KeepZeros": "keeping",
        "PolynomialSparsity": "magnitude",
        "TrainingSettings": "settings",
        "cluster_weights": "clustering",
        "layer_mapping": "mapping",
        "prune_magnitude": "magnitude",
        "sparsity_of": "magnitude",
        "to_keras": "bridge",
        "to_tf_keras": "bridge",
        "train_quantized": "quantization",
        "values_of": "clustering",
    },
)
