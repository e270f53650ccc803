"""Learning rates that fall with depth.

    rate of a block := rate of the optimizer * decay ** (blocks above it)

The head is block 0. Lower blocks hold more general features and should move less: Howard and Ruder
2018 (arXiv 1801.06146, section 3.2) divide the rate by 2.6 from layer to layer.
"""

from __future__ import annotations

from typing import Any

import keras

from kpipe.errors import TrainingError
from kpipe.train.blocks import find_blocks
from kpipe.train.carrying import unwrapped

__all__ = ["DiscriminativeRates"]


class DiscriminativeRates(keras.callbacks.Callback):
    """Trains each block of the model at a rate of its own, in any `model.fit`.

    Follows the model's optimizer: its schedule, a rate set by another callback, and another
    optimizer that takes its place in the middle of a fit. Decoupled weight decay falls with the
    rate, as in AdamW it is the rate that scales it. The optimizer that is saved is a plain one, and
    trains evenly again after the fit.

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
        blocks = find_blocks(model)
        return {
            layer.name: self.decay**above
            for above, block in zip(reversed(range(len(blocks))), blocks, strict=True)
            for layer in block.layers
            if layer.weights
        }

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
            by_layer = self.factors(self.model)
            by_weight = {
                id(weight): by_layer[layer.name]
                for block in find_blocks(self.model)
                for layer in block.layers
                for weight in layer.weights
            }
            if not current.built:
                current.build(self.model.trainable_variables)
            _scale(current, [by_weight[id(v)] for v in current._trainable_variables])
            self._scaled = current
            self.model.make_train_function(force=True)

    def _release(self) -> None:
        if self._scaled is not None:
            del self._scaled.update_step, self._scaled._apply_weight_decay
            self._scaled = None


def _scale(optimizer: Any, factors: list[float]) -> None:
    """Gives one optimizer, not its class, a factor for each of its variables."""
    update, decay_weights = optimizer.update_step, optimizer._apply_weight_decay

    def factor(variable: Any) -> float:
        return factors[optimizer._get_variable_index(variable)]

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

    optimizer.update_step = update_step
    optimizer._apply_weight_decay = apply_weight_decay
