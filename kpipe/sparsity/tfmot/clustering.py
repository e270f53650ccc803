"""Weight clustering by TFMOT: a kernel whose weights take a few values only.

    w -> the nearest of k centroids, which are trained      (Han, Mao and Dally 2016,
                                                             arXiv:1510.00149, section 3)

Few values compress well, and nothing gets faster.
"""

from __future__ import annotations

import operator
import os
from typing import Any

import keras
import numpy as np

from kpipe.errors import SparsityError, nearest
from kpipe.sparsity.bridge.mapping import leaves
from kpipe.sparsity.bridge.twins import to_keras, to_tf_keras
from kpipe.sparsity.tfmot.loading import cluster_preserving_zeros, tfmot
from kpipe.sparsity.tfmot.settings import TrainingSettings, check_training, refuse_wrong
from kpipe.sparsity.tfmot.training import (
    KERNELS,
    Batches,
    ZerosStay,
    train,
    wrapped,
)

__all__ = ["cluster_weights", "count_unique_weights"]

_STARTS = {
    "density": tfmot.clustering.keras.CentroidInitialization.DENSITY_BASED,
    "kmeans++": tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
    "linear": tfmot.clustering.keras.CentroidInitialization.LINEAR,
    "random": tfmot.clustering.keras.CentroidInitialization.RANDOM,
}
_DEFAULTS = TrainingSettings(learning_rate=1e-5)


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

    Trainable Conv2D and Dense kernels with more weights than that are clustered, each on its own.
    Zeros of a magnitude-pruned kernel stay zero, as one of the values, if there are 3 or more;
    a kernel with fewer weights than values above zero, or below, is trained and not clustered.

    Args:
        model: a trained functional or Sequential Keras 3 classifier ending in softmax. It is not
            changed.
        data: see `prune_magnitude`.
        clusters: how many values, 2 or more.
        epochs: how many.
        steps_per_epoch: batches in each.
        start: where the values are before training: "kmeans++", "linear" (evenly between the
            smallest and the largest weight), "density" (evenly among the weights) or "random".
        settings: how to train. The rate should be small: one value moves many weights.
        folder: keeps a checkpoint after each epoch, and continues from the last one there.

    Returns:
        A Keras 3 model with the same layers and names; see `count_unique_weights`.

    Raises:
        SparsityError: numbers out of range, nothing to cluster, layers that tf_keras does not
            have, a loss that is not finite, data that ends too soon, or a folder of another
            training.
    """
    refuse_wrong({"clusters": (clusters, lambda n: operator.index(n) >= 2)}, "2 clusters or more")
    check_training(epochs, steps_per_epoch, settings)
    if not isinstance(start, str) or start not in _STARTS:
        raise SparsityError(f"unknown start {start!r}", fix=nearest(str(start), _STARTS))

    def clustered(layer: Any) -> Any | None:
        if type(layer) not in KERNELS or not layer.trainable:
            return None
        kernel = layer.kernel.numpy()
        sparse = clusters > 2 and bool((kernel == 0).any())
        # With zeros apart, TFMOT clusters what is above and what is below them on their own.
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

    keras.utils.set_random_seed(settings.seed)  # k-means++ draws
    twin, paths = wrapped(to_tf_keras(model), clustered, settings.seed)
    if not paths:
        raise SparsityError(
            f"nothing to cluster in {model.name!r}",
            expected=f"at least one trainable Conv2D or Dense kernel of over {clusters} weights",
            fix="set layer.trainable = True on the layers to cluster",
        )
    train(
        twin,
        data,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        settings=settings,
        folder=folder,
        source=model,
        what={"clusters": clusters, "start": start},
        callbacks=[ZerosStay(twin)],
    )
    result = to_keras(tfmot.clustering.keras.strip_clustering(twin), template=model)
    many = {path: count for path, count in count_unique_weights(result).items() if path in paths}
    if worst := {path: count for path, count in many.items() if count > clusters}:
        raise SparsityError(f"kernels with more than {clusters} values: {worst}")
    return result


def count_unique_weights(model: keras.Model) -> dict[str, int]:
    """How many different values each layer's kernel has.

    Args:
        model: a Keras 3 model.

    Returns:
        {path of the layer: count}, nested models included.
    """
    return {
        path: len(np.unique(layer.kernel.numpy()))
        for path, layer in leaves(model)
        if hasattr(layer, "kernel")
    }
