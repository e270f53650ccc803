"""Layer-wise learning rate decay.

    learning rate of the head := learning rate of the optimizer
    learning rate of a block  := learning rate of the optimizer * backbone * decay ** blocks above

The head is the top block. Lower blocks hold more general features and should change less: Howard
and Ruder 2018 (arXiv 1801.06146, section 3.2) divide the learning rate by 2.6 from layer to layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kpipe.errors import TrainingError
from kpipe.keras_internals import APPLY_WEIGHT_DECAY, optimizer_variables, variable_index
from kpipe.train.optimizers.optimizer_state import inner_optimizer
from kpipe.train.transfer.blocks import find_blocks
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["LayerDecay", "learning_rate_factors"]

_FACTORS = "_kpipe_rate_factors"
_PATCHED = ("update_step", APPLY_WEIGHT_DECAY, _FACTORS)


@names_wrong_kinds_of_fields
class LayerDecay(keras.callbacks.Callback):
    """Train each block of the model with its own learning rate during `model.fit`.

    The decay applies to whatever learning rate the optimizer has: from its schedule, from another
    callback, or from a new optimizer after a switch. Decoupled weight decay is scaled in the same
    way, since the learning rate scales it in AdamW. A saved model holds the plain optimizer. The
    decay ends with the fit or, if the fit was interrupted, when the model is compiled again.

    Args:
        decay: the factor from a block to the one below it, in (0, 1]. The paper uses 1 / 2.6 for
            networks of four blocks; deep networks need values near 1.
        backbone: a further factor of all blocks but the head, in (0, 1]: a new head has more to
            learn than pretrained layers.

    Raises:
        TrainingError: a factor out of range; at the start of a fit, a model without a graph of
            layers.

    Example:
        >>> import keras
        >>> from kpipe.train import LayerDecay
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, name="conv"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2, activation="softmax", name="head"),
        ... ])
        >>> LayerDecay(0.5).factors(model)
        {'conv': 0.5, 'head': 1.0}
    """

    def __init__(self, decay: float, backbone: float = 1.0) -> None:
        super().__init__()
        for name, factor in (("decay", decay), ("backbone", backbone)):
            if not 0 < factor <= 1:
                raise TrainingError(
                    f"{name} is out of range", expected="(0, 1]", received=str(factor)
                )
        self.decay = decay
        self.backbone = backbone
        self._scaled: keras.optimizers.Optimizer | None = None

    def factors(self, model: keras.Model) -> dict[str, float]:
        """Return the factor on the learning rate of each layer with weights, by name."""
        return {layer.name: factor for layer, factor in self._by_layer(model)}

    def _by_layer(self, model: keras.Model) -> list[tuple[keras.layers.Layer, float]]:
        blocks = find_blocks(model)
        return [
            (layer, self.decay**above * (self.backbone if above else 1.0))
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
        self.model.train_function = None  # it was traced with the factors of this fit

    def _follow(self) -> None:
        current = inner_optimizer(self.model.optimizer)
        if current is not self._scaled:
            self._release()
            for name in _PATCHED:  # an interrupted fit may have left its replacements here
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
    """Set a factor for each variable of one optimizer, without changing its class."""
    update, decay_weights = optimizer.update_step, getattr(optimizer, APPLY_WEIGHT_DECAY)

    def factor(variable: Any) -> float:
        return factors[variable_index(optimizer, variable)]

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        update(gradient, variable, learning_rate * factor(variable))

    def apply_weight_decay(variables: list[Any]) -> None:
        full = optimizer.weight_decay
        if full is None:
            return
        for variable in variables:
            optimizer.weight_decay = full * factor(variable)
            decay_weights([variable])
        optimizer.weight_decay = full

    for name, value in zip(_PATCHED, (update_step, apply_weight_decay, factors), strict=True):
        object.__setattr__(optimizer, name, value)


def learning_rate_factors(optimizer: Any, variables: Sequence[Any]) -> list[float]:
    """Return the current factor on each variable's learning rate, 1 without `LayerDecay`."""
    factors = vars(optimizer).get(_FACTORS)
    if factors is None:
        return [1.0] * len(variables)
    return [factors[variable_index(optimizer, variable)] for variable in variables]
