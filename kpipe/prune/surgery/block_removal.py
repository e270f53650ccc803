"""Whole residual blocks removed: fewer layers instead of narrower ones.

    block without its branch  ==  block whose branch gives zeros, exactly

Residual networks lose little with any one of their blocks, unlike those without shortcuts (Veit,
Wilber and Belongie 2016, arXiv 1605.06431).
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable

import keras

from kpipe.errors import PruneError, nearest
from kpipe.prune.graph.tracing import read
from kpipe.prune.scores import loss_of
from kpipe.prune.surgery.rebuilding import rebuild
from kpipe.prune.surgery.residual_blocks import ResidualBlock, find_residual_blocks

__all__ = ["rank_blocks", "remove_blocks", "residual_blocks"]

Loss = Callable[[keras.Model], float]


def residual_blocks(model: keras.Model) -> tuple[ResidualBlock, ...]:
    """The residual blocks of a model, each named by the operation that adds its two sides.

    Raises:
        PruneError: as for `kpipe.prune.plan`.
    """
    return find_residual_blocks(read(model))


def rank_blocks(model: keras.Model, loss: Loss) -> dict[str, float]:
    """Name of a block -> the loss without it, lowest first.

    Args:
        model: a built Functional or Sequential model; left as it is.
        loss: (uncompiled model) -> a loss on validation data.
    """
    losses = {
        block.name: loss_of(loss(remove_blocks(model, [block.name])))
        for block in residual_blocks(model)
    }
    return dict(sorted(losses.items(), key=lambda item: item[1]))


def remove_blocks(
    model: keras.Model, blocks: Iterable[str] | int, *, loss: Loss | None = None
) -> keras.Model:
    """A new model without the branches of some residual blocks.

    The new model is an ordinary flat Functional model, see `remove_filters`: the layers that stay
    keep names and weights. It is not compiled.

    Args:
        model: a built Functional or Sequential model; left as it is.
        blocks: names, as `residual_blocks` gives them; or how many, and then those go whose removal
            raises the loss least, one after the other, the others ranked anew each time.
        loss: (uncompiled model) -> a loss on validation data; needed for a number of blocks.

    Raises:
        PruneError: names of no block, or more blocks than there are.
    """
    if not isinstance(blocks, Iterable):
        known = len(residual_blocks(model))
        whole = isinstance(blocks, numbers.Integral)
        if not whole or not 0 <= blocks <= known or loss is None:
            raise PruneError(
                "blocks cannot be removed by number like this",
                expected=f"0 to {known} blocks, and a loss to rank them by",
                received=f"{blocks} blocks, loss={loss}",
            )
        for _ in range(int(blocks)):
            model = remove_blocks(model, [next(iter(rank_blocks(model, loss)))])
        return model
    graph = read(model)
    found = {block.name: block for block in find_residual_blocks(graph)}
    named = [blocks] if isinstance(blocks, str) else list(blocks)
    unknown = [name for name in named if name not in found]
    if unknown:
        raise PruneError(
            f"no residual block is named {', '.join(map(repr, unknown))}",
            expected="the name of the operation that adds a block's two sides",
            fix="; ".join(nearest(name, found) for name in unknown),
        )
    instead = {found[name].sum: found[name].shortcut for name in named}
    return rebuild(graph, model.name, {}, instead)
