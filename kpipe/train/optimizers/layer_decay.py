"""Learning rates that fall with depth.

    rate of a block := rate of the optimizer * decay ** (blocks above it)

The head is block 0. Lower blocks hold more general features and should move less: Howard and Ruder
2018 (arXiv 1801.06146, section 3.2) divide the rate by 2.6 from layer to layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kpipe.errors import TrainingError
from kpipe.keras_internals import APPLY_WEIGHT_DECAY, optimizer_variables, variable_index
from kpipe.train.optimizers.optimizer_state import unwrapped
from kpipe.train.transfer.blocks import find_blocks

__all__ = ["LayerDecay", "rate_factors"]

_FACTORS = "_kpipe_rate_factors"
_PATCHED = ("update_step", APPLY_WEIGHT_DECAY, _FACTORS)


class LayerDecay(keras.callbacks.Callback):
    """Trains each block of the model at a rate of its own, in any `model.fit`.

    Follows the model's optimizer: its schedule, a rate set by another callback, and another
    optimizer that takes its place in the middle of a fit. Decoupled weight decay falls with the
    rate, as in AdamW it is the rate that scales it. The optimizer that is saved is a plain one, and
    trains evenly again after the fit; after one that broke off, once the model is compiled anew.

    Args:
        decay: the factor from a block to the one below it, in (0, 1]; 1 / 2.6 in the paper, whose
            networks have four blocks; deep networks of many blocks want it near 1.

    Raises:
        TrainingError: a decay out of range; at the start of a fit, a model without a graph of
            layers.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        if not 0 < decay <= 1:
            raise TrainingError(
                "rates fall with depth by a factor", expected="(0, 1]", received=str(decay)
            )
        self.decay = decay
        self._scaled: keras.optimizers.Optimizer | None = None

    def factors(self, model: keras.Model) -> dict[str, float]:
        """Name of a layer with weights -> what its rate is multiplied by, head last."""
        return {layer.name: factor for layer, factor in self._by_layer(model)}

    def _by_layer(self, model: keras.Model) -> list[tuple[keras.layers.Layer, float]]:
        blocks = find_blocks(model)
        return [
            (layer, self.decay**above)
            for above, block in zip(reversed(range(len(blocks))), blocks, strict=True)
            for layer in block.layers
            if layer.weights
        ]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._follow()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._follow()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._release()
        self.model.train_function = None  # it was traced with the rates of this fit

    def _follow(self) -> None:
        current = unwrapped(self.model.optimizer)
        if current is not self._scaled:
            self._release()
            for name in _PATCHED:  # a fit that broke off has left its own here
                vars(current).pop(name, None)
            by_weight = {
                id(weight): factor
                for layer, factor in self._by_layer(self.model)
                for weight in layer.weights
            }
            if not current.built:
                current.build(self.model.trainable_variables)
            _scale(current, [by_weight[id(v)] for v in optimizer_variables(current)])
            self._scaled = current
            self.model.make_train_function(force=True)

    def _release(self) -> None:
        if self._scaled is not None:
            for name in _PATCHED:
                vars(self._scaled).pop(name, None)
            self._scaled = None


def _scale(optimizer: Any, factors: list[float]) -> None:
    """Gives one optimizer, not its class, a factor for each of its variables."""
    update, decay_weights = optimizer.update_step, getattr(optimizer, APPLY_WEIGHT_DECAY)

    def factor(variable: Any) -> float:
        return factors[variable_index(optimizer, variable)]

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        update(gradient, variable, learning_rate * factor(variable))

    def apply_weight_decay(variables: list[Any]) -> None:
        whole = optimizer.weight_decay
        if whole is None:
            return
        for variable in variables:
            optimizer.weight_decay = whole * factor(variable)
            decay_weights([variable])
        optimizer.weight_decay = whole

    for name, value in zip(_PATCHED, (update_step, apply_weight_decay, factors), strict=True):
        object.__setattr__(optimizer, name, value)


def rate_factors(optimizer: Any, variables: Sequence[Any]) -> list[float]:
    """What the rate of each variable is multiplied by now; 1 where no callback says otherwise."""
    factors = vars(optimizer).get(_FACTORS)
    if factors is None:
        return [1.0] * len(variables)
    return [factors[variable_index(optimizer, variable)] for variable in variables]
