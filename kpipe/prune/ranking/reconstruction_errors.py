"""The error in a layer's output without each of its input channels.

W_kc    weights at kernel position k for input channel c, of all outputs that read it
R_kjc   E[x_(p+k)c x_(p+j)c], the mean over images and positions p of the layer's input
error   sum over k, j of <W_kc, W_jc> R_kjc  =  E |W_c * x_c|^2
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from kpipe.prune.graph.model_graph import Operation

__all__ = ["CONSUMER_KINDS", "channel_errors", "second_moments"]

_PATCHED = ("layers.Conv2D", "layers.SeparableConv2D")
_TRANSPOSED = ("layers.Conv1DTranspose", "layers.Conv2DTranspose", "layers.Conv3DTranspose")
_OTHERS = ("layers.Conv1D", "layers.Conv3D", "layers.SeparableConv1D", "layers.Dense")
_RECURRENT = ("layers.LSTM", "layers.GRU", "layers.SimpleRNN", "layers.Bidirectional")
CONSUMER_KINDS = frozenset((*_PATCHED, *_TRANSPOSED, *_OTHERS, *_RECURRENT))


def second_moments(operation: Operation, x: Any) -> tf.Tensor:
    """Return the mean of R over a batch, (kernel positions, kernel positions, channels).

    For layers whose kernel positions are assumed to be uncorrelated, return the mean square,
    (1, 1, channels).
    """
    channels = x.shape[-1]
    x = tf.cast(x, "float32")  # sums of half precision overflow
    if operation.kind not in _PATCHED:
        return tf.reduce_mean(tf.square(x), list(range(x.shape.rank - 1)))[None, None]
    config = operation.config
    strides, rates = (
        [1, *np.broadcast_to(config[name], 2).tolist(), 1] for name in ("strides", "dilation_rate")
    )
    window = list(config["kernel_size"])
    patches = tf.image.extract_patches(
        x, [1, *window, 1], strides, rates, config["padding"].upper()
    )
    rows = tf.reshape(patches, (-1, math.prod(window), channels))
    count = tf.cast(tf.shape(rows)[0], x.dtype)
    return tf.einsum("pkc,pjc->kjc", rows, rows) / count


def channel_errors(operation: Operation, moments: np.ndarray) -> np.ndarray:
    """Return the squared error in the output without each input channel, (channels,)."""
    weights = _consuming_weights(operation).astype(np.float64)
    if len(moments) == 1:  # one kernel position, or several that are assumed to be uncorrelated
        return np.square(weights).sum(axis=(0, 2)) * moments[0, 0]
    return np.einsum("kco,jco,kjc->c", weights, weights, moments, optimize=True)


def _consuming_weights(operation: Operation) -> np.ndarray:
    """The weights that read each channel, (kernel positions, input channels, outputs)."""
    weights = dict(zip(operation.weights, operation.source.weights, strict=True))
    kernels = [w.numpy() for name, w in weights.items() if name.partition("#")[0] == "kernel"]
    if "pointwise_kernel" in weights:
        depthwise, pointwise = weights["depthwise_kernel"].numpy(), weights["pointwise_kernel"]
        *_, channels, multiplier = depthwise.shape
        rows = depthwise.reshape(-1, channels, multiplier)
        return np.einsum("kcm,cmo->kco", rows, pointwise.numpy().reshape(channels, multiplier, -1))
    kernel = np.concatenate(kernels, axis=-1)  # a Bidirectional has two
    *_, read, made = kernel.shape
    rows = kernel.reshape(-1, read, made)
    if operation.kind in _TRANSPOSED:
        return rows.swapaxes(1, 2)
    groups = operation.config.get("groups") or 1
    # The outputs of one group are adjacent; each reads only the channels of its group.
    parts = rows.reshape(len(rows), read, groups, made // groups).swapaxes(1, 2)
    return parts.reshape(len(rows), groups * read, made // groups)
