"""Averages of weights: several networks of one training become one network of the same size.

soup        := the mean of each weight
greedy soup := members in order of their loss, each added if the loss of the soup falls

Networks that one training passes through lie in one basin, and their mean is often better than
each (Izmailov et al. 2018, arXiv 1803.05407). The mean of networks that were trained apart is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kpipe.ensemble.members import check_members, refuse_non_finite
from kpipe.errors import TrainingError
from kpipe.keras_copies import copy_model, copy_state
from kpipe.keras_internals import layers_within
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["greedy_soup", "soup"]


@names_wrong_kinds
def soup(models: Sequence[keras.Model]) -> keras.Model:
    """Return a network whose weights are the means of the members' weights.

    It costs as much as one member. The statistics of BatchNormalization layers are averaged, too:
    if these layers were trained, measure them anew with `kpipe.train.update_bn`.

    Source: Izmailov et al. 2018, arXiv 1803.05407 (stochastic weight averaging); Wortsman et al.
    2022, arXiv 2203.05482 (model soups).

    Args:
        models: two or more networks of the same layers, from one training. Networks that were
            trained apart have no useful mean.

    Returns:
        A new model, not compiled.

    Raises:
        TrainingError: members of different layers, weights that are NaN, or a model that cannot
            be copied.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from kpipe.ensemble import soup
        >>> members = []
        >>> for value in (1.0, 3.0):
        ...     dense = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant(value))
        ...     members.append(keras.Sequential([keras.Input((1,)), dense]))
        >>> soup(members)(np.ones((1, 1))).numpy()
        array([[2., 2.]], dtype=float32)
    """
    members = check_members(models)
    refuse_non_finite(members)
    layers = [[x for x in layers_within(model) if not _holds_layers(x)] for model in members]
    for number, others in enumerate(layers[1:], 2):
        _refuse_different(layers[0], others, number)
    mean = copy_model(members[0], TrainingError)
    for target, *sources in zip(mean.variables, *(each.variables for each in members), strict=True):
        if "float" in target.dtype:
            # In float64, so that the mean of equal weights is that weight.
            values = np.mean([keras.ops.convert_to_numpy(one) for one in sources], 0, "float64")
            target.assign(values.astype(target.dtype))
    copy_state(mean, mean)  # what layers derive from their weights
    return mean


@names_wrong_kinds
def greedy_soup(
    models: Sequence[keras.Model],
    loss: Callable[[keras.Model], float],
    *,
    finish: Callable[[keras.Model], None] | None = None,
) -> tuple[keras.Model, np.ndarray]:
    """Return the soup of the members that lower its loss, and their weights.

    The soup begins with the best member. Each further one, from better to worse, is added if the
    soup with it has a lower loss. So the result is never worse than the best member.

    Source: Wortsman et al. 2022, arXiv 2203.05482, recipe 1.

    Args:
        models: as for `soup`.
        loss: (model) -> a loss on validation photos, lower is better.
        finish: changes a soup in place before its loss is measured, such as `update_bn`.

    Returns:
        The soup, or the best member itself if no other was added; and the weight of each member,
        float64 (members,), with a sum of 1.

    Raises:
        TrainingError: as for `soup`, no models, or losses that are no numbers or all NaN.

    Example:
        >>> import keras
        >>> from kpipe.ensemble import greedy_soup
        >>> def network(value):
        ...     start = keras.initializers.Constant(value)
        ...     layer = keras.layers.Dense(2, kernel_initializer=start, use_bias=False)
        ...     return keras.Sequential([keras.Input((1,)), layer])
        >>> members = [network(value) for value in (1.0, 9.0, 4.0)]
        >>> greedy_soup(members, lambda model: abs(float(model.get_weights()[0][0, 0]) - 2.5))[1]
        array([0.5, 0. , 0.5])
    """
    losses = [_number(loss(model)) for model in models]
    order = [int(index) for index in np.argsort(losses, kind="stable")]  # NaN comes last
    if not order or np.isnan(losses[order[0]]):
        raise TrainingError(
            "no member of the soup has a loss", expected="a number", received=str(losses)
        )
    used, best, least = [order[0]], models[order[0]], losses[order[0]]
    for index in order[1:]:
        candidate = soup([models[one] for one in [*used, index]])
        if finish is not None:
            finish(candidate)
        value = _number(loss(candidate))
        if value < least:
            used, best, least = [*used, index], candidate, value
    weights = np.zeros(len(models))
    weights[used] = 1 / len(used)
    return best, weights


def _number(loss: Any) -> float:
    try:
        return float(loss)
    except (TypeError, ValueError) as error:
        raise TrainingError(
            "the loss of a soup is no number", expected="a number", received=f"{loss!r:.60}"
        ) from error


def _holds_layers(layer: keras.Layer) -> bool:
    return bool(layers_within(layer, include_self=False))


def _refuse_different(
    layers: Sequence[keras.Layer], others: Sequence[keras.Layer], number: int
) -> None:
    def described(layer: keras.Layer) -> str:
        return f"{type(layer).__name__} {[tuple(w.shape) for w in layer.weights]}"

    pairs = list(zip(map(described, layers), map(described, others), strict=False))
    differ = next((pair for pair in pairs if pair[0] != pair[1]), None)
    if differ is None and len(layers) != len(others):
        differ = f"{len(layers)} layers", f"{len(others)} layers"
    if differ is not None:
        raise TrainingError(
            f"member {number} of the soup has other layers than member 1",
            expected=differ[0],
            received=differ[1],
            fix="average the predictions of different networks: kpipe.ensemble.average",
        )
