"""Weight clustering by TFMOT: each kernel takes a few distinct values.

    w -> the nearest of k centroids, which are trained

Few values compress well; they make nothing faster.
"""

from __future__ import annotations

import os
from typing import Any

import keras

from kpipe.errors import SparsityError
from kpipe.sparsity.bridge.twins import to_keras, to_tf_keras
from kpipe.sparsity.kernel_statistics import count_unique_weights
from kpipe.sparsity.tfmot.batches import Batches
from kpipe.sparsity.tfmot.loading import cluster_preserving_zeros, tfmot
from kpipe.sparsity.tfmot.training import RestoreZeros, train
from kpipe.sparsity.tfmot.training_settings import (
    TrainingJob,
    TrainingSettings,
    refuse_invalid,
    refuse_unknown,
)
from kpipe.sparsity.tfmot.wrapping import KERNELS, wrap_layers
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["cluster_weights"]

_STARTS = {
    "density": tfmot.clustering.keras.CentroidInitialization.DENSITY_BASED,
    "kmeans++": tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
    "linear": tfmot.clustering.keras.CentroidInitialization.LINEAR,
    "random": tfmot.clustering.keras.CentroidInitialization.RANDOM,
}
_DEFAULTS = TrainingSettings(learning_rate=1e-5)


@names_wrong_kinds
def cluster_weights(
    model: keras.Model,
    data: Batches,
    *,
    clusters: int = 16,
    epochs: int,
    steps_per_epoch: int,
    start: str = "kmeans++",
    settings: TrainingSettings = _DEFAULTS,
    folder: str | os.PathLike[str] | None = None,
) -> keras.Model:
    """Train a classifier while the weights of each kernel share `clusters` values.

    Each trainable Conv2D and Dense kernel with more weights than that is clustered separately.
    With 3 clusters or more, zeros of a magnitude-pruned kernel stay zero, as one of the values. A
    kernel with fewer positive or negative weights than clusters is trained but not clustered.

    Args:
        model: a trained functional or Sequential Keras 3 classifier with a softmax output; it is
            not changed.
        data: see `prune_magnitude`.
        clusters: number of distinct values, 2 or more.
        epochs: number of epochs.
        steps_per_epoch: batches in each epoch.
        start: initial values: "kmeans++", "linear" (evenly spaced between the smallest and the
            largest weight), "density" (evenly spaced among the weights) or "random".
        settings: how to train; the learning rate should be small, as one value moves many weights.
        folder: for a checkpoint after each epoch, from which an interrupted training resumes.

    Returns:
        A Keras 3 model with the same layers and names.

    Raises:
        SparsityError: for values out of range, nothing to cluster, layers that tf_keras does not
            have, a loss that is not finite, data that ends too early, or a folder of another
            training run.

    Source:
        Han, Mao and Dally 2016, "Deep Compression", section 3, arXiv:1510.00149.

    Example:
        >>> import keras, numpy as np, tensorflow as tf
        >>> from kpipe.sparsity import cluster_weights, count_unique_weights
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(),
        ...     keras.layers.Dense(2, activation="softmax", name="top")])
        >>> data = tf.data.Dataset.from_tensors((np.zeros((4, 8, 8, 3), "float32"), [0, 1, 0, 1]))
        >>> clustered = cluster_weights(model, data, clusters=4, epochs=1, steps_per_epoch=1)
        >>> count_unique_weights(clustered)
        {'top': 4}
    """
    refuse_invalid({f"clusters={clusters!r}": clusters >= 2}, expected="2 clusters or more")
    refuse_unknown("start", start, _STARTS)
    job = TrainingJob(epochs, steps_per_epoch, settings, folder)

    def clusterable(layer: Any) -> Any | None:
        if type(layer) not in KERNELS or not layer.trainable:
            return None
        kernel = layer.kernel.numpy()
        sparse = clusters > 2 and bool((kernel == 0).any())
        # To keep zeros, TFMOT clusters positive and negative weights separately.
        if kernel.size <= clusters or (
            sparse and min((kernel > 0).sum(), (kernel < 0).sum()) < clusters
        ):
            return None
        return cluster_preserving_zeros(
            layer,
            number_of_clusters=clusters,
            cluster_centroids_init=_STARTS[start],
            preserve_sparsity=sparse,
        )

    keras.utils.set_random_seed(settings.seed)  # of k-means++
    twin, paths = wrap_layers(to_tf_keras(model), clusterable, settings.seed)
    if not paths:
        raise SparsityError(
            f"nothing to cluster in {model.name!r}",
            expected=f"at least one trainable Conv2D or Dense kernel of over {clusters} weights",
            fix="set layer.trainable = True on the layers to cluster",
        )
    train(
        twin,
        data,
        job,
        source=model,
        method={"clusters": clusters, "start": start},
        callbacks=[RestoreZeros(twin)],
    )
    result = to_keras(tfmot.clustering.keras.strip_clustering(twin), template=model)
    counts = {path: n for path, n in count_unique_weights(result).items() if path in paths}
    if excess := {path: count for path, count in counts.items() if count > clusters}:
        raise SparsityError(f"kernels with more than {clusters} values: {excess}")
    return result
