"""Remove whole residual blocks: fewer layers instead of narrower ones.

    block without its branch  ==  block whose branch outputs zeros, exactly

Residual networks lose little when any one of their blocks is removed, unlike networks without
shortcuts (Veit, Wilber and Belongie 2016, arXiv 1605.06431).
"""

from __future__ import annotations

from collections.abc import Iterable

import keras

from kpipe.errors import PruneError, nearest
from kpipe.prune.evaluation import Loss, finite
from kpipe.prune.graph.graph_reading import read
from kpipe.prune.graph.model_graph import Graph
from kpipe.prune.surgery.rebuilding import rebuild
from kpipe.prune.surgery.residual_blocks import ResidualBlock, find_residual_blocks
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["rank_blocks", "remove_blocks", "residual_blocks", "without_blocks"]


@names_wrong_kinds
def residual_blocks(model: keras.Model) -> tuple[ResidualBlock, ...]:
    """Return the residual blocks of a model, in the order of its graph.

    Raises:
        PruneError: as for `kpipe.prune.plan`.

    Example:
        >>> import keras
        >>> from kpipe.prune import residual_blocks
        >>> inputs = keras.Input((8, 8, 3))
        >>> branch = keras.layers.Conv2D(3, 3, padding="same")(inputs)
        >>> model = keras.Model(inputs, keras.layers.Add(name="sum")([inputs, branch]))
        >>> [block.name for block in residual_blocks(model)]
        ['sum']
    """
    return find_residual_blocks(read(model))


@names_wrong_kinds
def rank_blocks(model: keras.Model, loss: Loss) -> dict[str, float]:
    """Return block name -> loss without the block, lowest first.

    Args:
        model: a built Functional or Sequential model; not changed.
        loss: (uncompiled model) -> a loss on validation data.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from kpipe.prune import rank_blocks
        >>> x = inputs = keras.Input((8, 8, 4))
        >>> for name, scale in (("strong", "ones"), ("weak", "zeros")):
        ...     conv = keras.layers.Conv2D(4, 1, kernel_initializer=scale)
        ...     x = keras.layers.Add(name=name)([x, conv(x)])
        >>> model, images = keras.Model(inputs, x), np.ones((1, 8, 8, 4), "float32")
        >>> rank_blocks(model, lambda small: abs(model(images) - small(images)).numpy().mean())
        {'weak': 0.0, 'strong': 4.0}
    """
    graph = read(model)
    losses = {
        block.name: finite(loss(without_blocks(model, graph, [block.name])), "loss")
        for block in find_residual_blocks(graph)
    }
    return dict(sorted(losses.items(), key=lambda item: item[1]))


@names_wrong_kinds
def remove_blocks(
    model: keras.Model, blocks: Iterable[str] | int, *, loss: Loss | None = None
) -> keras.Model:
    """Return a new model without the branches of some residual blocks.

    The new model is an ordinary flat Functional model, see `remove_filters`: the layers that stay
    keep names and weights. It is not compiled.

    Args:
        model: a built Functional or Sequential model; not changed.
        blocks: block names, as `residual_blocks` gives them; or a number of blocks, removed one by
            one, each time the block whose removal raises the loss least.
        loss: (uncompiled model) -> a loss on validation data; needed for a number of blocks.

    Raises:
        PruneError: an unknown name, more blocks than there are, or a number without a loss.

    Example:
        >>> import keras
        >>> from kpipe.prune import remove_blocks
        >>> inputs = keras.Input((8, 8, 3), name="image")
        >>> branch = keras.layers.Conv2D(3, 3, padding="same", name="conv")(inputs)
        >>> model = keras.Model(inputs, keras.layers.Add(name="sum")([inputs, branch]))
        >>> [layer.name for layer in remove_blocks(model, ["sum"]).layers]
        ['image']
    """
    if isinstance(blocks, Iterable):
        return without_blocks(model, read(model), [blocks] if isinstance(blocks, str) else blocks)
    known = len(residual_blocks(model))
    if not 0 <= blocks <= known:
        raise PruneError(
            "blocks is out of range",
            expected=f"0 to {known}, the residual blocks of the model",
            received=f"blocks={blocks}",
        )
    if loss is None:
        raise PruneError(
            "a number of blocks needs loss, to rank them by",
            expected="a function from a model to a loss on validation data",
            received=f"blocks={blocks}, loss=None",
        )
    for _ in range(blocks):
        model = remove_blocks(model, [next(iter(rank_blocks(model, loss)))])
    return model


def without_blocks(model: keras.Model, graph: Graph, names: Iterable[str]) -> keras.Model:
    """Remove blocks by name from a model that is already read, see `remove_blocks`."""
    found, names = {block.name: block for block in find_residual_blocks(graph)}, list(names)
    unknown = [name for name in names if name not in found]
    if unknown:
        raise PruneError(
            f"no residual block is named {', '.join(map(repr, unknown))}",
            expected="the name of the operation that adds the shortcut and the branch",
            fix="; ".join(nearest(name, found) for name in unknown),
        )
    return rebuild(graph, model.name, {}, {found[name].sum: found[name].shortcut for name in names})
