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
        "ConstantSparsity": "tfmot.magnitude",
        "KeepZeros": "keep_zeros",
        "PolynomialSparsity": "tfmot.magnitude",
        "TrainingSettings": "tfmot.settings",
        "cluster_weights": "tfmot.clustering",
        "layer_mapping": "bridge.mapping",
        "prune_magnitude": "tfmot.magnitude",
        "sparsity_of": "tfmot.magnitude",
        "to_keras": "bridge.twins",
        "to_tf_keras": "bridge.twins",
        "train_quantized": "tfmot.quantization",
        "values_of": "tfmot.clustering",
    },
)
